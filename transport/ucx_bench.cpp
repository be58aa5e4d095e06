// What a message and a sum over UCX cost: two processes of this host over loopback TCP, or over the
// network device in UCX_NET_DEVICES.
//
// Prints medians over samples of a round trip's half, the bandwidth of one direction, and the sum's
// time; beside the sums, what the exchanges in them cost alone, which the sum should come close to.
// The two processes take a core each; on fewer cores it shows the cost of sleeping and waking.
#include "transport/ucx_data_plane.hpp"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

namespace {

namespace transport = troupe::transport;
namespace base = troupe::base;
using clock_source = std::chrono::steady_clock;
using seconds = std::chrono::duration<double>;

constexpr base::epoch_id epoch{.incarnation = 1, .number = 1};

double median(std::vector<double> samples) {
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

template <class Outcome>
void require(const Outcome& outcome) {
  if (outcome) return;
  std::fprintf(stderr, "transport_ucx_bench: %s\n", outcome.error().message.c_str());
  std::exit(1);
}

// Seconds of one of `calls` calls of `body`, median over `samples`, after a warm-up.
template <class Body>
double time_calls(transport::collective& group, int samples, int calls, Body body) {
  std::vector<double> taken;
  for (int sample = -1; sample < samples; ++sample) {
    require(group.barrier(epoch));
    const auto start = clock_source::now();
    for (int call = 0; call < calls; ++call) body();
    const seconds elapsed = clock_source::now() - start;
    if (sample >= 0) taken.push_back(elapsed.count() / calls);
  }
  return median(taken);
}

double time_half_round_trip(transport::collective& group, std::size_t bytes, int calls) {
  std::vector<std::byte> buffer(bytes);
  const int other = 1 - group.rank();
  return 0.5 * time_calls(group, 31, calls, [&] {
           if (group.rank() == 0) require(group.send(epoch, other, buffer));
           require(group.receive(epoch, other, buffer));
           if (group.rank() == 1) require(group.send(epoch, other, buffer));
         });
}

double time_one_way(transport::collective& group, std::size_t bytes, int calls) {
  std::vector<std::byte> buffer(bytes);
  return time_calls(group, 15, calls, [&] {
    if (group.rank() == 0) require(group.send(epoch, 1, buffer));
    if (group.rank() == 1) require(group.receive(epoch, 0, buffer));
  });
}

double time_sum(transport::collective& group, std::size_t bytes, int calls) {
  std::vector<float> values(bytes / sizeof(float), 0.0F);
  return time_calls(group, 31, calls, [&] { require(group.all_reduce_sum(epoch, values)); });
}

// Each rank gives the other its bytes: a sum over two ranks without the additions.
double time_exchange(transport::collective& group, std::size_t bytes, int calls) {
  std::vector<std::byte> all(2 * bytes);
  const std::span<std::byte> mine =
      std::span(all).subspan(bytes * static_cast<std::size_t>(group.rank()), bytes);
  return time_calls(group, 31, calls, [&] { require(group.all_gather(epoch, mine, all)); });
}

void measure(transport::collective& group) {
  const bool prints = group.rank() == 0;
  for (const std::size_t bytes : {std::size_t{8}, std::size_t{8} << 10}) {
    const double half = time_half_round_trip(group, bytes, 500);
    if (prints) std::printf("ping-pong %9zu B   %9.2f us one way\n", bytes, half * 1e6);
  }
  for (const std::size_t bytes : {std::size_t{64} << 10, std::size_t{1} << 20,
                                  std::size_t{16} << 20, std::size_t{64} << 20}) {
    const double taken = time_one_way(group, bytes, bytes > (std::size_t{4} << 20) ? 4 : 50);
    const double rate = static_cast<double>(bytes) / taken / 1e9;
    if (prints) std::printf("bandwidth %9zu B   %9.2f GB/s\n", bytes, rate);
  }
  for (const std::size_t bytes : {std::size_t{8} << 10, std::size_t{16} << 20}) {
    const int calls = bytes > (std::size_t{1} << 20) ? 2 : 500;
    const double sum = time_sum(group, bytes, calls);
    const double bare = time_exchange(group, bytes, calls);
    if (prints) {
      std::printf("all-reduce %8zu B   %9.2f us, exchange alone %9.2f us, ratio %.2f\n", bytes,
                  sum * 1e6, bare * 1e6, sum / bare);
    }
  }
}

// The addresses cross a socket pair, as they cross the control plane in a gang.
transport::data_plane_address swap_addresses(int socket, const transport::data_plane_address& own) {
  transport::data_plane_address theirs(transport::data_plane_address_bytes_max);
  if (::send(socket, own.data(), own.size(), 0) < 0) std::exit(1);
  const auto got = ::recv(socket, theirs.data(), theirs.size(), 0);
  if (got <= 0) std::exit(1);
  theirs.resize(static_cast<std::size_t>(got));
  return theirs;
}

void run(int rank, int socket) {
  const transport::data_plane_seat seat{
      .epoch = epoch, .rank = rank, .shape = {.tp_size = 2, .pp_size = 1}};
  require(transport::prepare_ucx_environment({.interface = "lo"}));
  auto plane = transport::open_ucx(seat);
  require(plane);
  std::vector<transport::data_plane_address> addresses(2, (*plane)->address());
  addresses[static_cast<std::size_t>(1 - rank)] = swap_addresses(socket, (*plane)->address());
  auto groups = (*plane)->connect(addresses, std::chrono::seconds(10));
  require(groups);
  measure(*groups->tp);
}

}  // namespace

int main() {
  int sockets[2] = {};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) != 0) return 1;
  // Before any call into UCX, which does not survive a fork.
  const pid_t child = ::fork();
  if (child < 0) return 1;
  run(child == 0 ? 1 : 0, sockets[child == 0 ? 1 : 0]);
  if (child == 0) return 0;
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}
