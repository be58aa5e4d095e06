// What TLS costs between two ranks on loopback, in two processes: a message there and back, the
// bandwidth of a stream and of an exchange, and what a sum makes of them.
//
//   transport_tls_bench            every figure at the default spin, then ping-pong by spin
#include "base/tls.hpp"
#include "transport/tls_data_plane.hpp"

#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

namespace {

namespace base = troupe::base;
namespace transport = troupe::transport;
using clock_source = std::chrono::steady_clock;
using seconds = std::chrono::duration<double>;

constexpr base::epoch_id epoch{.incarnation = 1, .number = 1};
constexpr std::size_t kib = 1024;
constexpr std::size_t large_bytes = 16 * kib * kib;

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "transport_tls_bench: %s\n", why.c_str());
  std::_Exit(1);
}

void require(const base::result<void>& outcome) {
  if (!outcome) stop(outcome.error().message);
}

// Of one call: on the clock, and of this rank's processor, which a busy machine does not stretch.
struct cost {
  double wall = 0;
  double cpu = 0;
};

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> samples) {
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

using body = std::function<void(int rank, transport::collective&)>;

void run_rank(int rank, int to_peer, transport::tls_data_plane_options options,
              const body& measured) {
  // Each rank on a core of its own, where there are two.
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(static_cast<std::size_t>(rank), &core);
  (void)::sched_setaffinity(0, sizeof(core), &core);
  auto plane =
      transport::open_tls({.epoch = epoch, .rank = rank, .shape = {.tp_size = 2}}, options);
  if (!plane) stop(plane.error().message);
  // The control plane of this bench: a socket pair.
  const auto& own = (*plane)->address();
  std::array<std::uint8_t, 256> theirs{};
  if (::write(to_peer, own.data(), own.size()) < 0) stop("write");
  const ssize_t got = ::read(to_peer, theirs.data(), theirs.size());
  if (got <= 0) stop("the other rank is gone");
  std::vector<transport::data_plane_address> addresses(2, own);
  addresses[static_cast<std::size_t>(1 - rank)].assign(theirs.begin(), theirs.begin() + got);
  auto groups = (*plane)->connect(addresses, std::chrono::seconds(10));
  if (!groups) stop(groups.error().message);
  measured(rank, *groups->tp);
}

// Runs the body as rank 0 here and as rank 1 in a child.
void run_pair(std::chrono::microseconds spin, const body& measured) {
  auto credentials = base::make_gang_credentials();
  if (!credentials) stop(credentials.error().message);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) stop("socketpair");
  const transport::tls_data_plane_options options{
      .credentials = &*credentials, .host = "127.0.0.1", .spin = spin};
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child < 0) stop("fork");
  if (child == 0) {
    ::close(ends[0]);
    run_rank(1, ends[1], options, measured);
    std::_Exit(0);
  }
  ::close(ends[1]);
  run_rank(0, ends[0], options, measured);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) stop("rank 1 failed");
}

// What a call of `step` costs: median over samples of `calls`, after one that warms up.
cost time_steps(transport::collective& group, int samples, int calls,
                const std::function<void()>& step) {
  std::vector<double> wall;
  std::vector<double> cpu;
  for (int sample = -1; sample < samples; ++sample) {
    require(group.barrier(epoch));
    const auto start = clock_source::now();
    const double cpu_start = cpu_seconds();
    for (int call = 0; call < calls; ++call) step();
    const seconds elapsed = clock_source::now() - start;
    if (sample < 0) continue;
    wall.push_back(elapsed.count() / calls);
    cpu.push_back((cpu_seconds() - cpu_start) / calls);
  }
  return {.wall = median(wall), .cpu = median(cpu)};
}

cost time_ping_pong(int rank, transport::collective& group, std::size_t bytes, int calls) {
  std::vector<std::byte> out(bytes);
  return time_steps(group, 21, calls, [&] {
    if (rank == 0) require(group.send(epoch, 1, out));
    require(group.receive(epoch, 1 - rank, out));
    if (rank == 1) require(group.send(epoch, 0, out));
  });
}

// One way, ended by one byte back.
cost time_stream(int rank, transport::collective& group, std::size_t bytes, int messages) {
  std::vector<std::byte> buffer(bytes);
  std::vector<std::byte> last(1);
  const cost whole = time_steps(group, 11, 1, [&] {
    for (int message = 0; message < messages; ++message) {
      require(rank == 0 ? group.send(epoch, 1, buffer) : group.receive(epoch, 0, buffer));
    }
    require(rank == 0 ? group.receive(epoch, 1, last) : group.send(epoch, 0, last));
  });
  return {.wall = whole.wall / messages, .cpu = whole.cpu / messages};
}

// Both ways at once.
cost time_exchange(int rank, transport::collective& group, std::size_t bytes) {
  std::vector<std::byte> out(bytes);
  std::vector<std::byte> in(bytes);
  std::vector<std::size_t> counts(2, 0);
  counts[static_cast<std::size_t>(1 - rank)] = bytes;
  return time_steps(group, 11, 2,
                    [&] { require(group.all_to_all_v(epoch, out, counts, in, counts)); });
}

cost time_sum(transport::collective& group, std::size_t bytes, int samples, int calls) {
  std::vector<float> values(bytes / sizeof(float), 0.0F);
  return time_steps(group, samples, calls, [&] { require(group.all_reduce_sum(epoch, values)); });
}

void measure_all(int rank, transport::collective& group) {
  const auto say = [rank](const char* what, cost taken, double gigabytes) {
    if (rank != 0) return;
    std::printf("%-36s %10.1f us %10.1f us of its core", what, taken.wall * 1e6, taken.cpu * 1e6);
    if (gigabytes > 0) std::printf(" %8.2f GB/s", gigabytes / taken.wall);
    std::printf("\n");
    std::fflush(stdout);
  };
  say("there and back, 8 B", time_ping_pong(rank, group, 8, 1000), 0);
  const cost round_trip = time_ping_pong(rank, group, 8 * kib, 1000);
  say("there and back, 8 KiB", round_trip, 0);
  say("one way, 1 MiB", time_stream(rank, group, kib * kib, 16), 1048576e-9);
  say("one way, 16 MiB", time_stream(rank, group, large_bytes, 4), 16777216e-9);
  const cost exchange = time_exchange(rank, group, large_bytes);
  say("both ways at once, 16 MiB, of each", exchange, 16777216e-9);
  const cost small = time_sum(group, 8 * kib, 21, 1000);
  say("sum over 2 ranks, 8 KiB", small, 0);
  const cost large = time_sum(group, large_bytes, 11, 2);
  say("sum over 2 ranks, 16 MiB", large, 16777216e-9);
  if (rank != 0) return;
  // A round of a sum is a message both ways at once: half a round trip where each rank has a core.
  std::printf("8 KiB sum / (half a round trip x 1 round): %.2f (at most 1.5)\n",
              small.wall / (round_trip.wall / 2));
  std::printf("16 MiB sum against an exchange of as many bytes: %.0f %% (at least 80)\n",
              100 * exchange.wall / large.wall);
}

}  // namespace

int main() {
  run_pair(transport::tls_data_plane_options{}.spin, measure_all);
  for (const int spin_us : {0, 5, 20, 50, 200}) {
    run_pair(std::chrono::microseconds(spin_us), [&](int rank, transport::collective& group) {
      const double small = time_ping_pong(rank, group, 8, 1000).wall;
      const double medium = time_ping_pong(rank, group, 8 * kib, 1000).wall;
      if (rank != 0) return;
      std::printf("spin %3d us: there and back 8 B %.1f us, 8 KiB %.1f us\n", spin_us, small * 1e6,
                  medium * 1e6);
    });
  }
  return 0;
}
