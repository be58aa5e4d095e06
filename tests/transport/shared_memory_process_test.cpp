// Ranks as processes over one shared segment: the same results as everywhere, and an end of every
// wait when a rank is killed, stopped, or the epoch is aborted from outside.
#include "tests/transport/shared_memory_runner.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace troupe::transport::testing {
namespace {

using base::error_code;

class SharedMemoryProcesses : public ::testing::TestWithParam<world_shape> {};

INSTANTIATE_TEST_SUITE_P(Shapes, SharedMemoryProcesses,
                         ::testing::Values(world_shape{1, 1}, world_shape{2, 1}, world_shape{1, 2},
                                           world_shape{4, 1}, world_shape{2, 2}, world_shape{8, 1},
                                           world_shape{4, 2}, world_shape{1, 3}),
                         [](const auto& which) {
                           return "tp" + std::to_string(which.param.tp_size) + "_pp" +
                                  std::to_string(which.param.pp_size);
                         });

void expect_sums(collective& group) {
  // Messages, one meeting, two; up to and beyond a board of 32768 floats.
  for (const std::size_t count :
       {0UL, 1UL, 7UL, 2048UL, 8191UL, 8192UL, 16383UL, 16384UL, 32768UL, 32769UL, 40001UL}) {
    std::vector<float> values = adversarial(count, group.rank(), count);
    TROUPE_EXPECT_OK(group.all_reduce_sum(epoch, values));
    EXPECT_EQ(differing_bits(values, reference_sum(count, group.size(), count)), 0U) << count;
  }
  const auto ranks = static_cast<std::size_t>(group.size());
  const std::vector<float> values = adversarial(3, group.rank(), 5003 * ranks);
  std::vector<float> mine(5003);
  TROUPE_EXPECT_OK(group.reduce_scatter_sum(epoch, values, mine));
  const auto expected = reference_sum(3, group.size(), 5003 * ranks);
  const auto begin = static_cast<std::size_t>(group.rank()) * mine.size();
  EXPECT_EQ(differing_bits(mine, std::span(expected).subspan(begin, mine.size())), 0U);
}

void expect_moves(collective& group, std::size_t count) {
  const auto ranks = static_cast<std::size_t>(group.size());
  std::vector<std::byte> all(count * ranks);
  TROUPE_EXPECT_OK(group.all_gather(epoch, pattern(1, group.rank(), 0, count), all));
  std::vector<std::byte> sent;
  std::vector<std::byte> expected;
  for (int other = 0; other < group.size(); ++other) {
    const auto theirs = pattern(1, other, 0, count);
    const auto begin = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(other) * count);
    EXPECT_TRUE(std::equal(theirs.begin(), theirs.end(), all.begin() + begin)) << other;
    const auto part = pattern(2, group.rank(), other, count);
    sent.insert(sent.end(), part.begin(), part.end());
    const auto back = pattern(2, other, group.rank(), count);
    expected.insert(expected.end(), back.begin(), back.end());
  }
  const std::vector<std::size_t> counts(ranks, count);
  TROUPE_EXPECT_OK(group.all_to_all_v(epoch, sent, counts, all, counts));
  EXPECT_EQ(all, expected);
  for (int root = 0; root < group.size(); ++root) {
    std::vector<std::byte> bytes(count);
    if (root == group.rank()) bytes = pattern(3, root, 0, count);
    TROUPE_EXPECT_OK(group.broadcast(epoch, root, bytes));
    EXPECT_EQ(bytes, pattern(3, root, 0, count));
  }
}

TEST_P(SharedMemoryProcesses, EveryGroupGivesTheResultsOfThreads) {
  gang_of_processes gang(GetParam(), [](rank_groups& groups, rank_report&) {
    for (collective* group : {groups.world.get(), groups.tp.get(), groups.pp.get()}) {
      if (is_power_of_two(group->size())) expect_sums(*group);
      // Below a line, of a line, longer than a ring of 256 KiB.
      for (const std::size_t count : {0UL, 1UL, 33UL, 64UL, 300001UL}) expect_moves(*group, count);
      TROUPE_EXPECT_OK(group->barrier(epoch));
    }
  });
  gang.expect_all_succeed();
}

TEST(SharedMemoryGang, ActivationsPassThroughTheStages) {
  gang_of_processes gang({.tp_size = 2, .pp_size = 4}, [](rank_groups& groups, rank_report&) {
    collective& stages = *groups.pp;
    for (std::size_t count : {8UL, 8192UL, 1000000UL}) {
      std::vector<std::byte> bytes = pattern(count, groups.tp->rank(), 0, count);
      if (stages.rank() > 0) {
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
        TROUPE_EXPECT_OK(stages.receive(epoch, stages.rank() - 1, bytes));
      }
      if (stages.rank() + 1 < stages.size()) {
        TROUPE_EXPECT_OK(stages.send(epoch, stages.rank() + 1, bytes));
      }
      EXPECT_EQ(bytes, pattern(count, groups.tp->rank(), 0, count));
      std::vector<float> sum = {1.0F};
      TROUPE_EXPECT_OK(groups.tp->all_reduce_sum(epoch, sum));
      EXPECT_EQ(sum[0], 2.0F);
    }
  });
  gang.expect_all_succeed();
}

// One round of work whose results are checked: what a killed rank has half written must not be in
// them. Returns the error that ended it.
using work = std::function<base::result<void>(rank_groups&, std::uint64_t)>;

base::result<void> sum_of(collective& group, std::size_t count, std::uint64_t turn) {
  std::vector<float> values(count, static_cast<float>(turn % 1024 + 1));
  TROUPE_TRY_VOID(group.all_reduce_sum(epoch, values));
  const auto expected = static_cast<float>(group.size()) * static_cast<float>(turn % 1024 + 1);
  EXPECT_EQ(std::count(values.begin(), values.end(), expected), static_cast<std::ptrdiff_t>(count));
  return {};
}

base::result<void> gather_of(collective& group, std::size_t count, std::uint64_t turn) {
  const auto filled = [&](int rank) {
    return static_cast<std::byte>(turn * 7 + 1 + static_cast<std::uint64_t>(rank));
  };
  const std::vector<std::byte> mine(count, filled(group.rank()));
  std::vector<std::byte> all(count * static_cast<std::size_t>(group.size()));
  TROUPE_TRY_VOID(group.all_gather(epoch, mine, all));
  for (int rank = 0; rank < group.size(); ++rank) {
    const auto begin =
        all.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(rank) * count);
    EXPECT_EQ(std::count(begin, begin + static_cast<std::ptrdiff_t>(count), filled(rank)),
              static_cast<std::ptrdiff_t>(count));
  }
  return {};
}

base::result<void> to_all_of(collective& group, std::size_t count, std::uint64_t turn) {
  const auto ranks = static_cast<std::size_t>(group.size());
  const std::vector<std::size_t> counts(ranks, count);
  const auto byte = static_cast<std::byte>(turn);
  const std::vector<std::byte> sent(count * ranks, byte);
  std::vector<std::byte> taken(count * ranks);
  TROUPE_TRY_VOID(group.all_to_all_v(epoch, sent, counts, taken, counts));
  EXPECT_EQ(taken, sent);
  return {};
}

base::result<void> pass_on(collective& group, std::size_t count, std::uint64_t turn) {
  std::vector<std::byte> bytes(count, static_cast<std::byte>(turn));
  const std::vector<std::byte> expected = bytes;
  if (group.rank() > 0) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0xee});
    TROUPE_TRY_VOID(group.receive(epoch, group.rank() - 1, bytes));
  }
  EXPECT_EQ(bytes, expected);
  if (group.rank() + 1 == group.size()) return {};
  return group.send(epoch, group.rank() + 1, bytes);
}

base::result<void> tell(collective& group, std::size_t count, std::uint64_t turn) {
  std::vector<std::byte> bytes(count, static_cast<std::byte>(turn));
  const std::vector<std::byte> expected = bytes;
  if (group.rank() != 0) std::fill(bytes.begin(), bytes.end(), std::byte{0xee});
  TROUPE_TRY_VOID(group.broadcast(epoch, 0, bytes));
  EXPECT_EQ(bytes, expected);
  return {};
}

const std::vector<std::pair<std::string, work>>& works() {
  static const std::vector<std::pair<std::string, work>> all = {
      {"barrier", [](rank_groups& groups, std::uint64_t) { return groups.world->barrier(epoch); }},
      {"sum of 8 KiB", [](rank_groups& g, std::uint64_t t) { return sum_of(*g.world, 2048, t); }},
      {"sum of 1 MiB", [](rank_groups& g, std::uint64_t t) { return sum_of(*g.world, 262144, t); }},
      {"gather of 1 MiB",
       [](rank_groups& g, std::uint64_t t) { return gather_of(*g.world, 1 << 20, t); }},
      {"all to all of 600 KiB",
       [](rank_groups& g, std::uint64_t t) { return to_all_of(*g.world, 600 << 10, t); }},
      {"send along of 1 MiB",
       [](rank_groups& g, std::uint64_t t) { return pass_on(*g.world, 1 << 20, t); }},
      {"broadcast of 8 KiB",
       [](rank_groups& g, std::uint64_t t) { return tell(*g.world, 8192, t); }},
  };
  return all;
}

void work_until_error(rank_groups& groups, rank_report& report, const work& once) {
  for (std::uint64_t turn = 0;; ++turn) {
    const auto outcome = once(groups, turn);
    if (!outcome) {
      report.ended_ns = steady_clock::now().time_since_epoch().count();
      report.code = static_cast<int>(outcome.error().code);
      return;
    }
    report.calls.fetch_add(1);
  }
}

// Waits for the survivors' ends; the longest time one took from `start`.
steady_clock::duration time_of_ends(gang_of_processes& gang, int victim,
                                    steady_clock::time_point start) {
  auto last = steady_clock::duration::zero();
  for (int rank = 0; rank < gang.size(); ++rank) {
    if (rank == victim) continue;
    EXPECT_EQ(gang.wait(rank), 0) << "rank " << rank;
    EXPECT_EQ(gang.report(rank).code, static_cast<int>(error_code::aborted)) << "rank " << rank;
    const auto ended = steady_clock::duration(gang.report(rank).ended_ns.load());
    last = std::max(last, ended - start.time_since_epoch());
  }
  return last;
}

// Sanitizers slow down what a rank does between two waits, checking its results, not the waits.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int slowness = 100;
constexpr int rounds_min = 1;
#else
constexpr int slowness = 1;
constexpr int rounds_min = 3;
#endif

// Promised: 1 ms. One quick round is proof that no wait sleeps on; a busy machine may keep a
// process off the cores in the others, but never for a second.
void expect_quick_ends(const std::string& what,
                       const std::function<steady_clock::duration()>& once) {
  constexpr auto promised = std::chrono::milliseconds(10) * slowness;
  const auto deadline = steady_clock::now() + std::chrono::seconds(30);
  auto best = steady_clock::duration::max();
  for (int round = 0; round < rounds_min || (best >= promised && steady_clock::now() < deadline);
       ++round) {
    const auto taken = once();
    EXPECT_LT(taken, std::chrono::seconds(1) * slowness) << what;
    best = std::min(best, taken);
  }
  EXPECT_LT(best, promised) << what;
}

TEST(SharedMemoryGang, AKilledRankLeavesTheOthersWithSoundResultsAndAnAbort) {
  std::mt19937_64 random(20261121);
  for (const auto& [name, once] : works()) {
    expect_quick_ends(name, [&, &name = name, &once = once] {
      gang_of_processes gang({.tp_size = 4, .pp_size = 1},
                             [&](rank_groups& groups, rank_report& report) {
                               work_until_error(groups, report, once);
                             });
      const int victim = static_cast<int>(random() % 4);
      const std::uint64_t calls = 1 + random() % (slowness == 1 ? 20 : 3);
      gang_of_processes::until([&] { return gang.report(victim).calls >= calls; }, name);
      gang.signal(victim, SIGKILL);
      EXPECT_TRUE(WIFSIGNALED(gang.wait(victim))) << name;
      const auto start = steady_clock::now();
      gang.watch().abort();
      EXPECT_TRUE(gang.watch().aborted());
      return time_of_ends(gang, victim, start);
    });
  }
}

TEST(SharedMemoryGang, AStoppedRankHoldsNobodyAndHearsOfTheAbortWhenItGoesOn) {
  for (const auto& [name, once] : works()) {
    expect_quick_ends(name, [&, &name = name, &once = once] {
      gang_of_processes gang({.tp_size = 2, .pp_size = 2},
                             [&](rank_groups& groups, rank_report& report) {
                               work_until_error(groups, report, once);
                             });
      gang_of_processes::until([&] { return gang.report(1).calls >= 3; }, name);
      gang.signal(1, SIGSTOP);
      gang_of_processes::until([&] { return state_of(gang.process(1)) == 'T'; }, name);
      const auto start = steady_clock::now();
      gang.watch().abort();
      const auto taken = time_of_ends(gang, 1, start);
      gang.signal(1, SIGCONT);
      EXPECT_EQ(gang.wait(1), 0) << name;
      EXPECT_EQ(gang.report(1).code, static_cast<int>(error_code::aborted)) << name;
      return taken;
    });
  }
}

// All ranks but 0 sleep in the kernel; a process that is no rank ends the epoch and is dead at
// once. Nobody else wakes them.
TEST(SharedMemoryGang, AThirdProcessThatDiesInTheActWakesAllSleepers) {
  expect_quick_ends("eight ranks", [] {
    gang_of_processes gang(
        {.tp_size = 8, .pp_size = 1}, [](rank_groups& groups, rank_report& report) {
          if (groups.world->rank() == 0) {
            ::raise(SIGSTOP);  // never comes
            return;
          }
          work_until_error(groups, report,
                           [](rank_groups& g, std::uint64_t) { return g.world->barrier(epoch); });
        });
    for (int rank = 1; rank < gang.size(); ++rank) {
      gang_of_processes::until(
          [&] { return gang.report(rank).connected && state_of(gang.process(rank)) == 'S'; },
          "asleep");
    }
    const auto start = steady_clock::now();
    const pid_t third = ::fork();
    if (third == 0) {
      auto watch = shared_segment_watch::open(gang.segment());
      watch->abort();
      ::kill(::getpid(), SIGKILL);
    }
    const auto taken = time_of_ends(gang, 0, start);
    ::waitpid(third, nullptr, 0);
    gang.signal(0, SIGCONT);
    EXPECT_EQ(gang.wait(0), 0);
    return taken;
  });
}

TEST(SharedMemoryGang, ARankThatAbortsEndsTheOthers) {
  expect_quick_ends("abort by rank 2", [] {
    gang_of_processes gang({.tp_size = 2, .pp_size = 2},
                           [](rank_groups& groups, rank_report& report) {
                             if (groups.world->rank() != 2) {
                               work_until_error(groups, report, works()[1].second);
                               return;
                             }
                             for (std::uint64_t turn = 0; turn < 10; ++turn)
                               TROUPE_EXPECT_OK(sum_of(*groups.world, 2048, turn));
                             report.ended_ns = steady_clock::now().time_since_epoch().count();
                             groups.pp->abort();
                           });
    EXPECT_EQ(gang.wait(2), 0);
    const steady_clock::time_point start{steady_clock::duration(gang.report(2).ended_ns.load())};
    EXPECT_TRUE(gang.watch().aborted());
    return time_of_ends(gang, 2, start);
  });
}

// A rank that ends in good order, without an abort, has left: no wait for it goes on.
TEST(SharedMemoryGang, ARankThatLeavesMakesItselfUnavailable) {
  gang_of_processes gang({.tp_size = 4, .pp_size = 1}, [](rank_groups& groups, rank_report&) {
    TROUPE_EXPECT_OK(groups.world->barrier(epoch));
    if (groups.world->rank() == 3) return;
    std::vector<float> values(16);
    const auto outcome = groups.world->all_reduce_sum(epoch, values);
    ASSERT_FALSE(outcome.has_value());
    // Who needs rank 3 first hears that, and aborts the others.
    EXPECT_TRUE(outcome.error().code == error_code::unavailable ||
                outcome.error().code == error_code::aborted)
        << error_of(outcome);
  });
  gang.expect_all_succeed();
  EXPECT_TRUE(gang.watch().aborted());
}

}  // namespace
}  // namespace troupe::transport::testing
