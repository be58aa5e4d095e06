#include "transport/simulated.hpp"

#include "tests/transport/group_runner.hpp"

#include <gtest/gtest.h>

#include <mutex>

namespace troupe::transport::testing {
namespace {

using base::error_code;

base::result<void> mismatch(const char* what) {
  return base::fail(error_code::data_loss, "test", what);
}

// One operation drawn from `random`, which is in the same state on every rank; checks its result.
base::result<void> random_operation(collective& group, std::mt19937_64& random) {
  const std::uint64_t seed = random();
  const int kinds = (group.size() & (group.size() - 1)) == 0 ? 6 : 4;
  const auto kind = random() % static_cast<std::uint64_t>(kinds);
  const std::size_t count = random() % 300;
  const int root = static_cast<int>(random() % static_cast<std::uint64_t>(group.size()));
  const int self = group.rank();
  const auto ranks = static_cast<std::size_t>(group.size());
  switch (kind) {
    case 0:
      return group.barrier(epoch);
    case 1: {
      auto bytes = pattern(seed, self, root, count);
      TROUPE_TRY_VOID(group.broadcast(epoch, root, bytes));
      return bytes == pattern(seed, root, root, count) ? base::result<void>() : mismatch("root");
    }
    case 2: {
      std::vector<std::byte> all(count * ranks);
      TROUPE_TRY_VOID(group.all_gather(epoch, pattern(seed, self, 0, count), all));
      std::vector<std::byte> expected;
      for (int r = 0; r < group.size(); ++r) {
        const auto part = pattern(seed, r, 0, count);
        expected.insert(expected.end(), part.begin(), part.end());
      }
      return all == expected ? base::result<void>() : mismatch("gather");
    }
    case 3: {
      std::vector<std::byte> send;
      std::vector<std::byte> expected;
      for (int r = 0; r < group.size(); ++r) {
        const auto out = pattern(seed, self, r, count);
        const auto in = pattern(seed, r, self, count);
        send.insert(send.end(), out.begin(), out.end());
        expected.insert(expected.end(), in.begin(), in.end());
      }
      std::vector<std::byte> received(expected.size());
      const std::vector<std::size_t> counts(ranks, count);
      TROUPE_TRY_VOID(group.all_to_all_v(epoch, send, counts, received, counts));
      return received == expected ? base::result<void>() : mismatch("all to all");
    }
    case 4: {
      auto values = adversarial(seed, self, count);
      TROUPE_TRY_VOID(group.all_reduce_sum(epoch, values));
      const bool same = differing_bits(values, reference_sum(seed, group.size(), count)) == 0;
      return same ? base::result<void>() : mismatch("sum");
    }
    default: {
      const auto values = adversarial(seed, self, count * ranks);
      std::vector<float> mine(count);
      TROUPE_TRY_VOID(group.reduce_scatter_sum(epoch, values, mine));
      const auto sums = reference_sum(seed, group.size(), count * ranks);
      const auto part = std::span(sums).subspan(static_cast<std::size_t>(self) * count, count);
      return differing_bits(mine, part) == 0 ? base::result<void>() : mismatch("part");
    }
  }
}

struct outcome {
  std::vector<std::optional<error_code>> errors;  // by rank; none: all operations succeeded
  std::uint64_t digest = 0;
  bool deadlocked = false;
};

// Everything follows from the seed: size, delays, link bounds, algorithm, operations.
outcome run_seed(std::uint64_t seed, int operations, simulation_options faults = {}) {
  std::mt19937_64 random(seed);
  constexpr int sizes[] = {2, 3, 4, 5, 8};
  faults.seed = seed;
  faults.size = sizes[random() % 5];
  faults.delay_ticks_max = random() % 60;
  faults.link_messages_max = random() % 3;
  const auto halving_bytes_min = static_cast<std::size_t>(random() % 2 * 400);
  // -2 asks for a rank drawn here.
  const int unlucky = static_cast<int>(random() % static_cast<std::uint64_t>(faults.size));
  if (faults.lost_rank == -2) faults.lost_rank = unlucky;
  if (faults.aborting_rank == -2) faults.aborting_rank = unlucky;
  faults.lost_at = faults.aborting_at = random() % 40;
  outcome result;
  result.errors.resize(static_cast<std::size_t>(faults.size));
  within(std::chrono::seconds(120), [&] {
    simulated_network network(faults);
    network.run([&](std::unique_ptr<point_to_point> peers) {
      message_collective group(std::move(peers), epoch, {.halving_bytes_min = halving_bytes_min});
      std::mt19937_64 draws(seed + 1);
      for (int i = 0; i < operations; ++i) {
        const auto done = random_operation(group, draws);
        if (done) continue;
        result.errors[static_cast<std::size_t>(group.rank())] = done.error().code;
        return;
      }
    });
    result.digest = network.schedule_digest();
    result.deadlocked = network.deadlocked();
  });
  return result;
}

TEST(SimulatedNetwork, RandomOperationsSucceedUnderRandomDelays) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const outcome result = run_seed(seed, 12);
    EXPECT_FALSE(result.deadlocked) << "seed " << seed;
    for (const auto& error : result.errors) {
      EXPECT_FALSE(error) << "seed " << seed << ": " << to_string(*error);
    }
  }
}

TEST(SimulatedNetwork, ALostRankEndsAllRanksWithAnError) {
  int survivors_unavailable = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const outcome result = run_seed(seed, 1000, {.lost_rank = -2});
    EXPECT_FALSE(result.deadlocked) << "seed " << seed;
    int unavailable = 0;
    for (const auto& error : result.errors) {
      ASSERT_TRUE(error) << "seed " << seed << ": a rank never noticed";
      EXPECT_TRUE(*error == error_code::unavailable || *error == error_code::aborted)
          << "seed " << seed << ": " << to_string(*error);
      unavailable += *error == error_code::unavailable ? 1 : 0;
    }
    // The lost rank itself, and who first needed it.
    EXPECT_GE(unavailable, 2) << "seed " << seed;
    survivors_unavailable += unavailable - 1;
  }
  EXPECT_GE(survivors_unavailable, 200);
}

TEST(SimulatedNetwork, AnAbortingRankEndsAllRanksWithAborted) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const outcome result = run_seed(seed, 1000, {.aborting_rank = -2});
    EXPECT_FALSE(result.deadlocked) << "seed " << seed;
    for (const auto& error : result.errors) {
      ASSERT_TRUE(error) << "seed " << seed << ": a rank never noticed";
      EXPECT_EQ(*error, error_code::aborted) << "seed " << seed;
    }
  }
}

TEST(SimulatedNetwork, TheSeedDecidesTheSchedule) {
  int different = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const std::uint64_t digest = run_seed(seed, 12).digest;
    EXPECT_EQ(digest, run_seed(seed, 12).digest) << "seed " << seed;
    different += digest != run_seed(seed + 100, 12).digest ? 1 : 0;
  }
  EXPECT_EQ(different, 10);
}

TEST(SimulatedNetwork, MessagesOvertakeEachOtherBetweenLinksOnly) {
  bool overtaken = false;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    std::vector<int> arrivals;
    std::mutex mutex;
    simulated_network network(
        {.seed = seed, .size = 3, .delay_ticks_max = 40, .link_messages_max = 8});
    network.run([&](std::unique_ptr<point_to_point> peers) {
      constexpr message_tag tag{.kind = operation::send_receive};
      for (int message = 0; message < 5; ++message) {
        std::vector<std::byte> byte(1, static_cast<std::byte>(message));
        if (peers->rank() == 0) {
          TROUPE_EXPECT_OK(peers->send(tag, {.to = 1, .bytes = byte}));
          TROUPE_EXPECT_OK(peers->send(tag, {.to = 2, .bytes = byte}));
          continue;
        }
        TROUPE_EXPECT_OK(peers->receive(tag, {.from = 0, .bytes = byte}));
        EXPECT_EQ(byte[0], static_cast<std::byte>(message)) << "seed " << seed;
        const std::lock_guard lock(mutex);
        arrivals.push_back(peers->rank());
      }
    });
    // Sent first to rank 1; seen first at rank 2.
    overtaken = overtaken || arrivals.front() == 2;
  }
  EXPECT_TRUE(overtaken);
}

TEST(SimulatedNetwork, ADeadlockIsSeenNotWaitedFor) {
  simulated_network network({.seed = 1, .size = 2, .link_messages_max = 0});
  network.run([&](std::unique_ptr<point_to_point> peers) {
    // Both send before they receive, and nothing is buffered.
    constexpr message_tag tag{.kind = operation::send_receive};
    const int other = 1 - peers->rank();
    TROUPE_EXPECT_FAILS(internal, peers->send(tag, {.to = other, .bytes = {}}));
  });
  EXPECT_TRUE(network.deadlocked());
}

TEST(SimulatedNetwork, AbortFromOutsideEndsTheWaits) {
  within(std::chrono::seconds(60), [] {
    simulated_network network({.seed = 3, .size = 4});
    std::jthread aborter([&] { network.abort(); });
    network.run([&](std::unique_ptr<point_to_point> peers) {
      message_collective group(std::move(peers), epoch);
      base::result<void> last;
      while (last) last = group.barrier(epoch);
      EXPECT_EQ(last.error().code, error_code::aborted);
    });
  });
}

}  // namespace
}  // namespace troupe::transport::testing
