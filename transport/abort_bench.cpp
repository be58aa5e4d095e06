// How long a wait outlives the abort of its data plane: the promise is 1 ms.
//
// Two ranks of one process over each data plane, a new epoch a sample. Rank 0 waits in a
// collective, asleep; then its own plane is aborted (as a rank does that is told of a loss), or
// only its peer's. Prints median, 99th percentile and maximum in microseconds. A busy machine shows
// in the maximum.
//
//   transport_abort_bench [SAMPLES]
#include "base/tls.hpp"
#include "transport/bench_need.hpp"
#include "transport/shared_memory.hpp"
#include "transport/tls_data_plane.hpp"
#include "transport/ucx_data_plane.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace base = troupe::base;
namespace transport = troupe::transport;
using clock_source = std::chrono::steady_clock;
using microseconds = std::chrono::duration<double, std::micro>;

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::chrono::milliseconds falls_asleep{3};  // a wait spins 50 us before

using transport::need;

using planes = std::array<std::unique_ptr<transport::data_plane>, 2>;
using opener = std::function<planes(base::epoch_id epoch)>;

transport::data_plane_seat seat_of(base::epoch_id epoch, int rank) {
  return {.epoch = epoch, .rank = rank, .shape = {.tp_size = 2, .pp_size = 1}};
}

planes open_shared(base::epoch_id epoch) {
  const base::fd segment = need(transport::make_shared_segment(epoch, 2));
  planes made;
  for (const int rank : {0, 1}) {
    made[static_cast<std::size_t>(rank)] =
        need(transport::open_shared_memory(seat_of(epoch, rank), base::fd(::dup(segment.get()))));
  }
  return made;
}

planes open_tls(base::epoch_id epoch) {
  static const base::gang_credentials credentials = need(base::make_gang_credentials());
  const transport::tls_data_plane_options options{.credentials = &credentials, .host = "127.0.0.1"};
  return {need(transport::open_tls(seat_of(epoch, 0), options)),
          need(transport::open_tls(seat_of(epoch, 1), options))};
}

planes open_ucx(base::epoch_id epoch) {
  return {need(transport::open_ucx(seat_of(epoch, 0))),
          need(transport::open_ucx(seat_of(epoch, 1)))};
}

// What a rank does when the abort comes, and whether its peer takes part.
struct wait_kind {
  const char* name;
  bool with_peer;
  std::function<base::result<void>(transport::collective&, base::epoch_id)> call;
};

std::vector<wait_kind> kinds() {
  return {
      {"a sum of 8 KiB, peer absent", false,
       [](transport::collective& group, base::epoch_id epoch) {
         std::vector<float> values(2048);
         return group.all_reduce_sum(epoch, values);
       }},
      {"a plan from rank 1", false,
       [](transport::collective& group, base::epoch_id epoch) {
         std::vector<std::byte> plan(4096);
         return group.broadcast(epoch, 1, plan);
       }},
      {"a barrier", false,
       [](transport::collective& group, base::epoch_id epoch) { return group.barrier(epoch); }},
      {"in sums of 16 MiB", true,
       [](transport::collective& group, base::epoch_id epoch) {
         std::vector<float> values(16 * mib / sizeof(float));
         for (;;) {
           if (auto sum = group.all_reduce_sum(epoch, values); !sum) return sum;
         }
       }},
  };
}

// Microseconds from the abort of one rank's plane to the end of rank 0's call.
double sample(const planes& two, base::epoch_id epoch, const wait_kind& kind, std::size_t aborted) {
  const std::vector<transport::data_plane_address> addresses{two[0]->address(), two[1]->address()};
  std::array<transport::rank_groups, 2> groups;
  const auto connect = [&](std::size_t rank) {
    groups[rank] = need(two[rank]->connect(addresses, std::chrono::seconds(10)));
  };
  std::thread peer(connect, 1);
  connect(0);
  peer.join();
  clock_source::time_point ended;
  std::thread waits([&] {
    const auto outcome = kind.call(*groups[0].world, epoch);
    ended = clock_source::now();
    if (outcome) need<void>(base::fail(base::error_code::internal, "bench", "it did not wait"));
  });
  std::thread beside([&] {
    if (kind.with_peer) static_cast<void>(kind.call(*groups[1].world, epoch));
  });
  std::this_thread::sleep_for(falls_asleep);
  const auto begin = clock_source::now();
  two[aborted]->abort();
  waits.join();
  two[1 - aborted]->abort();
  beside.join();
  return microseconds(ended - begin).count();
}

void measure(const char* plane, const opener& open, int samples) {
  std::uint64_t number = 0;
  for (const wait_kind& kind : kinds()) {
    for (const std::size_t aborted : {0U, 1U}) {
      std::vector<double> taken;
      for (int i = 0; i < samples; ++i) {
        const base::epoch_id epoch{.incarnation = 1, .number = ++number};
        taken.push_back(sample(open(epoch), epoch, kind, aborted));
      }
      std::sort(taken.begin(), taken.end());
      std::printf("%-14s %-28s %-8s %8.0f %8.0f %8.0f us\n", plane, kind.name,
                  aborted == 0 ? "its own" : "its peer", taken[taken.size() / 2],
                  taken[taken.size() * 99 / 100], taken.back());
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int samples = argc > 1 ? std::max(1, std::atoi(argv[1])) : 100;
  std::printf("%-14s %-28s %-8s %8s %8s %8s\n", "data plane", "rank 0 waits for, or is", "aborted",
              "median", "99 %", "most");
  measure("shared memory", open_shared, samples);
  measure("tls", open_tls, samples);
  if (const auto prepared = transport::prepare_ucx_environment({.interface = "lo"}); !prepared) {
    std::printf("ucx: %s\n", prepared.error().message.c_str());
    return 0;
  }
  measure("ucx", open_ucx, samples);
  return 0;
}
