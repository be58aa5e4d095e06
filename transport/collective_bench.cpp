// What a sum over thread ranks costs, beside the memory bandwidth of the same run.
//
// Prints microseconds a call (median of the samples) and, for the large sum, the bytes it must move
// (each rank's buffer read once and written once) as a share of what one thread a core moves that
// goes over such a buffer of its own. Ranks beyond the cores share them: those rows show the cost
// of sleeping and waking.
#include "transport/threads.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <thread>
#include <vector>

namespace {

namespace transport = troupe::transport;
using seconds = std::chrono::duration<double>;
using clock_source = std::chrono::steady_clock;

constexpr troupe::base::epoch_id epoch{.incarnation = 1, .number = 1};
constexpr std::size_t large_bytes = std::size_t{16} << 20;

double median(std::vector<double> samples) {
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

void require(const troupe::base::result<void>& outcome) {
  if (outcome) return;
  std::fprintf(stderr, "transport_bench: %s\n", outcome.error().message.c_str());
  std::exit(1);
}

// Seconds a call of all_reduce_sum, as rank 0 sees it, median over the samples.
double time_all_reduce(int ranks, std::size_t bytes, int samples, int calls) {
  auto group = transport::make_thread_group(ranks, epoch);
  std::vector<double> taken;
  const auto body = [&](int rank) {
    transport::collective& mine = *group[static_cast<std::size_t>(rank)];
    std::vector<float> values(bytes / sizeof(float), 0.0F);
    for (int sample = -1; sample < samples; ++sample) {  // sample -1 warms up
      require(mine.barrier(epoch));
      const auto start = clock_source::now();
      for (int call = 0; call < calls; ++call) require(mine.all_reduce_sum(epoch, values));
      const seconds elapsed = clock_source::now() - start;
      if (rank == 0 && sample >= 0) taken.push_back(elapsed.count() / calls);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int rank = 1; rank < ranks; ++rank) threads.emplace_back(body, rank);
    body(0);
  }
  return median(taken);
}

// Bytes a second that `threads` threads read and write together while each goes over large_bytes
// of its own in place: what a sum over their buffers moves, without the sum's meetings and sharing.
double sweep_bandwidth(int threads) {
  auto group = transport::make_thread_group(threads, epoch);
  std::vector<double> taken;
  const auto body = [&](int rank) {
    transport::collective& mine = *group[static_cast<std::size_t>(rank)];
    std::vector<float> values(large_bytes / sizeof(float), 1.0F);
    for (int sample = -1; sample < 15; ++sample) {
      require(mine.barrier(epoch));
      const auto start = clock_source::now();
      for (float& value : values) value += 1.0F;
      require(mine.barrier(epoch));
      const seconds elapsed = clock_source::now() - start;
      if (rank == 0 && sample >= 0) taken.push_back(elapsed.count());
    }
  };
  {
    std::vector<std::jthread> others;
    for (int rank = 1; rank < threads; ++rank) others.emplace_back(body, rank);
    body(0);
  }
  return 2.0 * static_cast<double>(large_bytes) * threads / median(taken);
}

}  // namespace

int main() {
  std::printf("cores %u\n", std::thread::hardware_concurrency());
  std::printf("%6s %12s %12s %12s %12s %12s %8s\n", "ranks", "barrier us", "8 KiB us", "16 MiB us",
              "sum GB/s", "sweep GB/s", "share");
  const double limit =
      sweep_bandwidth(static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 8U)));
  for (const int ranks : {2, 4, 8}) {
    const int calls = ranks == 2 ? 1000 : 50;
    const double empty = time_all_reduce(ranks, 0, 51, calls);
    const double small = time_all_reduce(ranks, std::size_t{8} << 10, 51, calls);
    const double large = time_all_reduce(ranks, large_bytes, 15, 1);
    const double moved = 2.0 * static_cast<double>(large_bytes) * ranks / large;
    std::printf("%6d %12.2f %12.2f %12.0f %12.2f %12.2f %7.0f%%\n", ranks, empty * 1e6, small * 1e6,
                large * 1e6, moved / 1e9, limit / 1e9, 100.0 * moved / limit);
  }
  return 0;
}
