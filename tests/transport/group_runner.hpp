// Runs one body on every rank of a group, over each implementation of the collectives.
#pragma once

#include "tests/transport/tls_runner.hpp"
#include "tests/transport/ucx_runner.hpp"
#include "transport/alone.hpp"
#include "transport/message_collective.hpp"
#include "transport/shared_memory.hpp"
#include "transport/shared_memory_plane.hpp"
#include "transport/simulated.hpp"
#include "transport/threads.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace troupe::transport::testing {

inline constexpr base::epoch_id epoch{.incarnation = 0xabc, .number = 3};

// doubling and halving: message_collective over the simulated network, that algorithm at every
// size. shared_memory: threads that share one mapping of a segment. tls, ucx: over loopback.
enum class implementation { alone, threads, doubling, halving, shared_memory, tls, ucx };

inline std::string name_of(implementation kind) {
  switch (kind) {
    case implementation::alone:
      return "alone";
    case implementation::threads:
      return "threads";
    case implementation::doubling:
      return "doubling";
    case implementation::halving:
      return "halving";
    case implementation::shared_memory:
      return "shared_memory";
    case implementation::tls:
      return "tls";
    case implementation::ucx:
      return "ucx";
  }
  return "?";
}

struct group_case {
  implementation kind = implementation::threads;
  int size = 2;
};

inline std::string case_name(const ::testing::TestParamInfo<group_case>& info) {
  return name_of(info.param.kind) + "_" + std::to_string(info.param.size);
}

// Not over UCX in a build with ThreadSanitizer: UCX is not instrumented, and its memory hooks run
// in threads whose state the sanitizer has taken down already.
inline std::vector<group_case> cases_of(std::initializer_list<int> sizes) {
#ifdef __SANITIZE_THREAD__
  constexpr bool over_ucx = false;
#else
  constexpr bool over_ucx = true;
#endif
  std::vector<group_case> cases = {{implementation::alone, 1}};
  for (const auto kind :
       {implementation::threads, implementation::doubling, implementation::halving,
        implementation::shared_memory, implementation::tls, implementation::ucx}) {
    if (kind == implementation::ucx && !over_ucx) continue;
    for (const int size : sizes) cases.push_back({kind, size});
  }
  return cases;
}

// A test that would hang ends the program with its name instead.
template <class Body>
void within(std::chrono::seconds deadline, Body body) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::jthread worker([&] {
    body();
    const std::lock_guard lock(mutex);
    done = true;
    changed.notify_one();
  });
  std::unique_lock lock(mutex);
  if (changed.wait_for(lock, deadline, [&] { return done; })) return;
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  std::fprintf(stderr, "%s.%s: not done within its deadline\n", test->test_suite_name(),
               test->name());
  std::_Exit(1);
}

inline void run_threads(std::vector<std::unique_ptr<collective>>& ranks,
                        const std::function<void(collective&)>& body) {
  std::vector<std::jthread> threads;
  for (auto& rank : ranks) threads.emplace_back([&rank, &body] { body(*rank); });
}

// Runs the body on every rank of a gang over one shared segment; no rank begins before all are
// connected, so that a body may abort at once.
inline void run_shared_memory(world_shape shape, const std::function<void(rank_groups&)>& body) {
  const int ranks = shape.tp_size * shape.pp_size;
  auto made = make_shared_segment(epoch, ranks);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  auto segment = shared_segment::map(std::move(*made), epoch, ranks);
  ASSERT_TRUE(segment.has_value()) << segment.error().message;
  std::latch connected(ranks);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      auto plane = make_shared_memory({.epoch = epoch, .rank = rank, .shape = shape}, *segment);
      auto groups = (*plane)->connect({}, std::chrono::seconds(60));
      ASSERT_TRUE(groups.has_value()) << groups.error().message;
      connected.arrive_and_wait();
      body(*groups);
    });
  }
}

inline void run_group(group_case which, const std::function<void(collective&)>& body,
                      simulation_options network_options = {}) {
  within(std::chrono::seconds(120), [&] {
    if (which.kind == implementation::alone) {
      body(*make_alone(epoch));
      return;
    }
    if (which.kind == implementation::threads) {
      auto ranks = make_thread_group(which.size, epoch);
      run_threads(ranks, body);
      return;
    }
    if (which.kind == implementation::shared_memory) {
      run_shared_memory({.tp_size = which.size, .pp_size = 1},
                        [&](rank_groups& groups) { body(*groups.tp); });
      return;
    }
    if (which.kind == implementation::tls) {
      tls_gang gang({.shape = {.tp_size = which.size}, .epoch = epoch});
      gang.run([&](int, rank_groups& groups) { body(*groups.tp); });
      return;
    }
    if (which.kind == implementation::ucx) {
      ucx_gang gang({.shape = {.tp_size = which.size}, .epoch = epoch});
      gang.run([&](int, rank_groups& groups) { body(*groups.tp); });
      return;
    }
    network_options.size = which.size;
    simulated_network network(network_options);
    const bool halves = which.kind == implementation::halving;
    network.run([&](std::unique_ptr<point_to_point> peers) {
      message_collective ranks(std::move(peers), epoch,
                               {.halving_bytes_min = halves ? 0 : SIZE_MAX});
      body(ranks);
    });
    EXPECT_FALSE(network.deadlocked());
  });
}

template <class T>
std::string error_of(const base::result<T>& outcome) {
  return outcome ? "success"
                 : std::string(to_string(outcome.error().code)) + ": " + outcome.error().message;
}
#define TROUPE_EXPECT_OK(expression)                                  \
  do {                                                                \
    const auto expect_ok_outcome = (expression);                      \
    EXPECT_TRUE(expect_ok_outcome.has_value())                        \
        << ::troupe::transport::testing::error_of(expect_ok_outcome); \
  } while (false)
#define TROUPE_EXPECT_FAILS(expected_code, expression)                                      \
  do {                                                                                      \
    const auto expect_fails_outcome = (expression);                                         \
    ASSERT_FALSE(expect_fails_outcome.has_value());                                         \
    EXPECT_EQ(expect_fails_outcome.error().code, ::troupe::base::error_code::expected_code) \
        << ::troupe::transport::testing::error_of(expect_fails_outcome);                    \
  } while (false)

// Values whose sum depends on the order: ordinary ones; at every fourth position huge ones that
// cancel, denormals and signed zeros among them. The same for the same (seed, rank).
inline std::vector<float> adversarial(std::uint64_t seed, int rank, std::size_t count) {
  std::mt19937_64 random(seed * 1000 + static_cast<std::uint64_t>(rank));
  std::normal_distribution<float> ordinary(0.0F, 3.0F);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto draw = random();
    values[i] = ordinary(random);
    if (i % 4 != 0) continue;
    switch (draw % 8) {
      case 0:
        values[i] = 1e30F;
        break;
      case 1:
        values[i] = -1e30F;
        break;
      case 2:
        values[i] = std::bit_cast<float>(static_cast<std::uint32_t>(draw >> 41));
        break;
      case 3:
        values[i] = -0.0F;
        break;
      case 4:
        values[i] *= 1e-20F;
        break;
      default:
        break;
    }
  }
  return values;
}

// The tree, written down once more, one element at a time, from the definition.
inline float reference_tree(std::span<const float> values) {
  if (values.size() == 1) return values[0];
  const std::size_t half = values.size() / 2;
  return reference_tree(values.first(half)) + reference_tree(values.subspan(half));
}

inline std::vector<float> reference_sum(std::uint64_t seed, int ranks, std::size_t count) {
  std::vector<std::vector<float>> inputs;
  for (int rank = 0; rank < ranks; ++rank) inputs.push_back(adversarial(seed, rank, count));
  std::vector<float> sums(count);
  std::vector<float> column(static_cast<std::size_t>(ranks));
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t r = 0; r < column.size(); ++r) column[r] = inputs[r][i];
    sums[i] = reference_tree(column);
  }
  return sums;
}

// Positions whose bits differ; equality of floats would take -0.0 for 0.0.
inline std::size_t differing_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return SIZE_MAX;
  std::size_t differing = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    differing += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) ? 1U : 0U;
  }
  return differing;
}

// Bytes that name their origin.
inline std::vector<std::byte> pattern(std::uint64_t seed, int from, int to, std::size_t count) {
  std::vector<std::byte> bytes(count);
  std::uint64_t state =
      seed * 0x9e3779b97f4a7c15ULL + static_cast<std::uint64_t>(from * 64 + to) + 1;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    byte = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

}  // namespace troupe::transport::testing
