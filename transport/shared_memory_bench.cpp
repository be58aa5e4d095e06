// What the shared-memory data plane costs between processes: a ping-pong, a stream of bytes, and
// the all-reduce beside both in the same run.
//
// Prints medians as rank 0 sees them. `one way`: half of a round trip. `both ways`: each of two
// ranks sends and receives so much at once. An all-reduce of n bytes over p ranks is held against
// log2(p) ping-pongs of n bytes, and its bytes, 2 (p - 1) / p n out of and into each rank, against
// `both ways`. `messages` is the same sum by message_collective over the rings alone. More ranks
// than cores: those rows show sleeping and waking.
#include "transport/bench_need.hpp"
#include "transport/mesh_groups.hpp"
#include "transport/shared_memory.hpp"
#include "transport/shared_memory_peers.hpp"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace transport = troupe::transport;
namespace base = troupe::base;
using clock_source = std::chrono::steady_clock;

constexpr base::epoch_id epoch{.incarnation = 1, .number = 1};
constexpr std::size_t kib = 1024;
constexpr std::size_t mib = kib * kib;
constexpr int samples = 21;

using transport::need;

enum class sums { boards, messages };

transport::rank_groups join(const transport::data_plane_seat& seat, base::fd segment, sums how,
                            std::unique_ptr<transport::data_plane>& plane) {
  if (how == sums::boards) {
    plane = need(transport::open_shared_memory(seat, std::move(segment)));
    return need(plane->connect({}, std::chrono::seconds(10)));
  }
  auto mapped = need(transport::shared_segment::map(std::move(segment), epoch, seat.shape.tp_size));
  auto peers = std::make_shared<transport::shared_peers>(std::move(mapped), seat);
  need(peers->join(std::chrono::seconds(10)));
  return transport::make_mesh_groups(peers, seat.shape, epoch);
}

// A rank stays on one core, so that two runs differ by what they measure and not by where the
// scheduler put them.
void pin(int rank) {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int left = rank % CPU_COUNT(&allowed);
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || left-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

using body = std::function<double(transport::collective&)>;

// Runs `measure` on every rank, each a process; gives rank 0's figure.
double run(int ranks, sums how, const body& measure) {
  const base::fd segment = need(transport::make_shared_segment(epoch, ranks));
  auto* figure = static_cast<double*>(
      ::mmap(nullptr, sizeof(double), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::vector<pid_t> processes;
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t process = ::fork();
    if (process == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      pin(rank);
      std::unique_ptr<transport::data_plane> plane;
      const transport::data_plane_seat seat{
          .epoch = epoch, .rank = rank, .shape = {.tp_size = ranks, .pp_size = 1}};
      const auto groups = join(seat, base::fd(::dup(segment.get())), how, plane);
      const double taken = measure(*groups.world);
      if (rank == 0) *figure = taken;
      std::_Exit(0);
    }
    processes.push_back(process);
  }
  for (const pid_t process : processes) {
    int status = 0;
    ::waitpid(process, &status, 0);
    if (status != 0) std::exit(1);
  }
  const double result = *figure;
  ::munmap(figure, sizeof(double));
  return result;
}

// Seconds a call, median over the samples; all ranks begin a sample together.
double time_calls(transport::collective& group, int calls, const std::function<void()>& call) {
  std::vector<double> taken;
  for (int sample = -2; sample < samples; ++sample) {
    need(group.barrier(epoch));
    const auto start = clock_source::now();
    for (int i = 0; i < calls; ++i) call();
    const std::chrono::duration<double> elapsed = clock_source::now() - start;
    if (sample >= 0) taken.push_back(elapsed.count() / calls);
  }
  std::nth_element(taken.begin(), taken.begin() + samples / 2, taken.end());
  return taken[samples / 2];
}

int calls_for(int ranks, std::size_t bytes) {
  const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
  const std::size_t most = static_cast<std::size_t>(ranks) <= cores ? 1000 : 50;
  return static_cast<int>(
      std::clamp<std::size_t>(16 * mib / std::max<std::size_t>(bytes, 1), 1, most));
}

double ping_pong(std::size_t bytes) {
  return run(2, sums::boards, [&](transport::collective& pair) {
    std::vector<std::byte> message(bytes);
    const bool first = pair.rank() == 0;
    return time_calls(pair, calls_for(2, bytes),
                      [&] {
                        if (first) need(pair.send(epoch, 1, message));
                        need(pair.receive(epoch, first ? 1 : 0, message));
                        if (!first) need(pair.send(epoch, 0, message));
                      }) /
           2;
  });
}

// Bytes a second of a stream of such messages, until the last one has arrived.
double one_way(std::size_t bytes) {
  const int calls = std::max(4, calls_for(2, bytes));
  return run(2, sums::boards, [&](transport::collective& pair) {
    std::vector<std::byte> message(bytes);
    const double taken = time_calls(pair, 1, [&] {
      for (int i = 0; i < calls; ++i) {
        need(pair.rank() == 0 ? pair.send(epoch, 1, message) : pair.receive(epoch, 0, message));
      }
      need(pair.rank() == 0 ? pair.receive(epoch, 1, {}) : pair.send(epoch, 0, {}));
    });
    return static_cast<double>(bytes) * calls / taken;
  });
}

double both_ways(std::size_t bytes) {
  return run(2, sums::boards, [&](transport::collective& pair) {
    std::vector<std::byte> all(2 * bytes);
    const auto mine = std::span(all).subspan(pair.rank() == 0 ? 0 : bytes, bytes);
    const double taken =
        time_calls(pair, calls_for(2, bytes), [&] { need(pair.all_gather(epoch, mine, all)); });
    return static_cast<double>(bytes) / taken;
  });
}

double all_reduce(int ranks, std::size_t bytes, sums how) {
  return run(ranks, how, [&](transport::collective& group) {
    std::vector<float> values(bytes / sizeof(float), 0.0F);
    return time_calls(group, calls_for(ranks, bytes),
                      [&] { need(group.all_reduce_sum(epoch, values)); });
  });
}

double barrier(int ranks) {
  return run(ranks, sums::boards, [&](transport::collective& group) {
    return time_calls(group, calls_for(ranks, 0), [&] { need(group.barrier(epoch)); });
  });
}

}  // namespace

int main() {
  const std::vector<std::size_t> sizes = {8,         8 * kib, 32 * kib, 64 * kib,
                                          256 * kib, 1 * mib, 16 * mib};
  std::printf("cores %u, ring of 2 ranks %zu KiB, board %zu KiB\n",
              std::thread::hardware_concurrency(), transport::ring_bytes(2) / kib,
              transport::board_bytes / kib);
  std::vector<double> pings;
  std::printf("%12s %12s %14s %14s\n", "bytes", "one way us", "one way GB/s", "both ways GB/s");
  for (const std::size_t bytes : sizes) {
    pings.push_back(ping_pong(bytes));
    std::printf("%12zu %12.2f", bytes, pings.back() * 1e6);
    if (bytes >= 256 * kib)
      std::printf(" %14.2f %14.2f", one_way(bytes) / 1e9, both_ways(bytes) / 1e9);
    std::printf("\n");
    std::fflush(stdout);
  }
  const double limit = both_ways(16 * mib);
  std::printf("%6s %10s %12s %12s %14s %8s %8s\n", "ranks", "bytes", "sum us", "messages us",
              "x ping-pongs", "GB/s", "share");
  for (const int ranks : {2, 4, 8}) {
    std::printf("%6d    barrier %12.2f\n", ranks, barrier(ranks) * 1e6);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const double taken = all_reduce(ranks, sizes[i], sums::boards);
      const double messages = all_reduce(ranks, sizes[i], sums::messages);
      const int rounds = ranks == 2 ? 1 : ranks == 4 ? 2 : 3;
      const double moved = 2.0 * (ranks - 1) / ranks * static_cast<double>(sizes[i]) / taken;
      std::printf("%6d %10zu %12.2f %12.2f %14.2f %8.2f %7.0f%%\n", ranks, sizes[i], taken * 1e6,
                  messages * 1e6, taken / pings[i] / rounds, moved / 1e9, 100 * moved / limit);
      std::fflush(stdout);
    }
  }
  return 0;
}
