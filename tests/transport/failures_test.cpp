// What goes wrong must end, on every rank, with the right error: stale epochs, aborts, ranks that
// disagree, ranks that are gone.
#include "tests/transport/group_runner.hpp"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>

namespace troupe::transport::testing {
namespace {

using base::error_code;
using std::chrono::steady_clock;

class Failures : public ::testing::TestWithParam<group_case> {};

INSTANTIATE_TEST_SUITE_P(All, Failures, ::testing::ValuesIn(cases_of({2, 3, 8})), case_name);

TEST_P(Failures, StaleEpochIsRefusedAndTheGroupLivesOn) {
  run_group(GetParam(), [](collective& group) {
    const base::epoch_id stale{.incarnation = epoch.incarnation, .number = epoch.number - 1};
    const auto ranks = static_cast<std::size_t>(group.size());
    std::vector<float> values(ranks, 1.0F);
    std::vector<float> part(1);
    std::vector<std::byte> bytes(ranks);
    const std::vector<std::size_t> ones(ranks, 1);
    const auto one = std::span<const std::byte>(bytes).first(1);
    TROUPE_EXPECT_FAILS(aborted, group.all_reduce_sum(stale, values));
    TROUPE_EXPECT_FAILS(aborted, group.reduce_scatter_sum(stale, values, part));
    TROUPE_EXPECT_FAILS(aborted, group.all_gather(stale, one, bytes));
    TROUPE_EXPECT_FAILS(aborted, group.all_gather_v(stale, one, ones, bytes));
    TROUPE_EXPECT_FAILS(aborted, group.all_to_all_v(stale, bytes, ones, bytes, ones));
    TROUPE_EXPECT_FAILS(aborted, group.broadcast(stale, 0, bytes));
    TROUPE_EXPECT_FAILS(aborted, group.send(stale, 0, bytes));
    TROUPE_EXPECT_FAILS(aborted, group.receive(stale, 0, bytes));
    TROUPE_EXPECT_FAILS(aborted, group.barrier(stale));
    TROUPE_EXPECT_OK(group.barrier(epoch));
  });
}

TEST_P(Failures, AfterAbortEveryCallIsRefused) {
  run_group(GetParam(), [](collective& group) {
    group.abort();
    std::vector<float> values(1);
    TROUPE_EXPECT_FAILS(aborted, group.barrier(epoch));
    TROUPE_EXPECT_FAILS(aborted, group.all_reduce_sum(epoch, values));
    TROUPE_EXPECT_FAILS(aborted, group.send(epoch, 0, {}));
  });
}

TEST_P(Failures, SumsNeedAPowerOfTwo) {
  run_group(GetParam(), [](collective& group) {
    const bool fits = (group.size() & (group.size() - 1)) == 0;
    std::vector<float> values(static_cast<std::size_t>(group.size()), 1.0F);
    std::vector<float> part(1);
    const auto reduced = group.all_reduce_sum(epoch, values);
    const auto scattered = group.reduce_scatter_sum(epoch, values, part);
    EXPECT_EQ(reduced.has_value(), fits);
    EXPECT_EQ(scattered.has_value(), fits);
    if (!fits) {
      EXPECT_EQ(reduced.error().code, error_code::invalid_argument);
      EXPECT_EQ(scattered.error().code, error_code::invalid_argument);
      EXPECT_NE(reduced.error().message.find("3 ranks"), std::string::npos);
    }
    TROUPE_EXPECT_OK(group.barrier(epoch));  // refused alike everywhere: nobody is out of step
  });
}

TEST_P(Failures, PeersThatAreNotThereAreRefused) {
  for (const int offset : {0, 1, -1}) {
    run_group(GetParam(), [&](collective& group) {
      // Only one rank calls: a refusal over messages aborts the group.
      if (group.rank() != 0) return;
      const int peer = offset == 1 ? group.size() : offset;
      TROUPE_EXPECT_FAILS(invalid_argument, group.send(epoch, peer, {}));
    });
    run_group(GetParam(), [&](collective& group) {
      if (group.rank() != 0) return;
      const int peer = offset == 1 ? group.size() : offset;
      TROUPE_EXPECT_FAILS(invalid_argument, group.receive(epoch, peer, {}));
    });
  }
}

using call = std::function<base::result<void>(collective&)>;

// Rank 1 makes a call that does not fit the others'. Threads: every rank hears invalid_argument and
// the group goes on. Messages: at least one finds it, the others are aborted; nobody hangs.
void expect_disagreement(group_case which, const call& operation) {
  if (which.size == 1) return;
  std::mutex mutex;
  std::vector<error_code> codes;
  run_group(which, [&](collective& group) {
    const auto outcome = operation(group);
    auto code = outcome ? std::optional<error_code>() : outcome.error().code;
    if (which.kind == implementation::threads) {
      EXPECT_TRUE(code == error_code::invalid_argument) << error_of(outcome);
      TROUPE_EXPECT_OK(group.barrier(epoch));
    } else if (!code) {
      // Done before the others noticed; the next call finds out.
      const auto next = group.barrier(epoch);
      ASSERT_FALSE(next.has_value());
      code = next.error().code;
    }
    const std::lock_guard lock(mutex);
    if (code) codes.push_back(*code);
  });
  EXPECT_EQ(codes.size(), static_cast<std::size_t>(which.size));
  EXPECT_NE(std::count(codes.begin(), codes.end(), error_code::invalid_argument), 0);
  for (const error_code code : codes) {
    EXPECT_TRUE(code == error_code::invalid_argument || code == error_code::aborted ||
                code == error_code::unavailable)
        << to_string(code);
  }
}

TEST_P(Failures, DifferentLengthsAreFound) {
  // Also where one more float takes another way: slots, boards, slices.
  for (const std::size_t count : {2UL, 4096UL, 8191UL, 16383UL, 40000UL}) {
    expect_disagreement(GetParam(), [count](collective& group) {
      if ((group.size() & (group.size() - 1)) != 0) {
        std::vector<std::byte> bytes(count + (group.rank() == 1 ? 1 : 0));
        return group.broadcast(epoch, 0, bytes);
      }
      std::vector<float> values(count + (group.rank() == 1 ? 1 : 0));
      return group.all_reduce_sum(epoch, values);
    });
  }
}

TEST_P(Failures, DifferentOperationsAreFound) {
  expect_disagreement(GetParam(), [](collective& group) {
    std::vector<std::byte> bytes;
    return group.rank() == 1 ? group.all_gather(epoch, {}, bytes) : group.barrier(epoch);
  });
}

TEST_P(Failures, CountsThatDoNotAddUpAreFound) {
  expect_disagreement(GetParam(), [](collective& group) {
    const auto ranks = static_cast<std::size_t>(group.size());
    std::vector<std::size_t> counts(ranks, 8);
    std::vector<std::byte> all(8 * ranks);
    // Wraps to the right sum: 8 + 2^64 - 8 + ... must not be believed.
    if (group.rank() == 1) counts[0] = SIZE_MAX - 7;
    if (group.rank() == 1) counts[1] = 8 + 16;
    return group.all_gather_v(epoch, std::span<const std::byte>(all).first(8), counts, all);
  });
  expect_disagreement(GetParam(), [](collective& group) {
    const auto ranks = static_cast<std::size_t>(group.size());
    const std::vector<std::size_t> counts(ranks - (group.rank() == 1 ? 1 : 0), 8);
    std::vector<std::byte> bytes(8 * counts.size());
    return group.all_to_all_v(epoch, bytes, counts, bytes, counts);
  });
}

TEST_P(Failures, PartsThatOneSendsAndTheOtherDoesNotExpectAreFound) {
  expect_disagreement(GetParam(), [](collective& group) {
    const auto ranks = static_cast<std::size_t>(group.size());
    std::vector<std::size_t> counts(ranks, 8);
    std::vector<std::size_t> expected = counts;
    if (group.rank() == 1) counts[0] = 9;
    const std::vector<std::byte> send(8 * ranks + (group.rank() == 1 ? 1 : 0));
    std::vector<std::byte> received(8 * ranks);
    return group.all_to_all_v(epoch, send, counts, received, expected);
  });
}

TEST_P(Failures, PartsOfTheWrongLengthAreFound) {
  expect_disagreement(GetParam(), [](collective& group) {
    const auto ranks = static_cast<std::size_t>(group.size());
    std::vector<std::byte> all(8 * ranks);
    const std::vector<std::byte> mine(group.rank() == 1 ? 7 : 8);
    return group.all_gather(epoch, mine, all);
  });
}

TEST_P(Failures, ARootOutsideTheGroupIsFound) {
  expect_disagreement(GetParam(), [](collective& group) {
    std::vector<std::byte> bytes(8);
    return group.broadcast(epoch, group.rank() == 1 ? -1 : 0, bytes);
  });
}

TEST(ThreadGroup, DifferentRootsAreFound) {
  expect_disagreement({implementation::threads, 3}, [](collective& group) {
    std::vector<std::byte> bytes(8);
    return group.broadcast(epoch, group.rank() == 1 ? 1 : 0, bytes);
  });
}

TEST(ThreadGroup, SendAndReceiveOfDifferentLengthsAreFound) {
  for (const std::size_t count : {8UL, 100000UL}) {
    run_group({implementation::threads, 2}, [&](collective& group) {
      std::vector<std::byte> bytes(count);
      if (group.rank() == 0) {
        const auto sent = group.send(epoch, 1, bytes);
        // A short message has left before the receiver looks at it.
        EXPECT_EQ(sent.has_value(), count == 8);
        TROUPE_EXPECT_OK(group.send(epoch, 1, bytes));
      } else {
        TROUPE_EXPECT_FAILS(invalid_argument, group.receive(epoch, 0, std::span(bytes).first(7)));
        TROUPE_EXPECT_OK(group.receive(epoch, 0, bytes));
      }
    });
  }
}

// Waits until the kernel says that the thread sleeps.
bool asleep_before(pid_t thread, steady_clock::time_point deadline) {
  while (steady_clock::now() < deadline) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string stat;
    std::getline(file, stat);
    const auto name_end = stat.rfind(')');
    if (name_end != std::string::npos && stat.size() > name_end + 2 && stat[name_end + 2] == 'S') {
      return true;
    }
    std::this_thread::yield();
  }
  return false;
}

// Rank 0 aborts from a thread of its own while all others sleep in `operation`; returns how long
// they took to come back.
steady_clock::duration time_abort(int size, const call& operation) {
  auto ranks = make_thread_group(size, epoch);
  std::vector<std::atomic<pid_t>> threads(static_cast<std::size_t>(size));
  std::atomic<int> back{0};
  steady_clock::time_point start;
  steady_clock::time_point last;
  within(std::chrono::seconds(60), [&] {
    std::vector<std::jthread> running;
    for (int rank = 1; rank < size; ++rank) {
      running.emplace_back([&, rank] {
        const auto index = static_cast<std::size_t>(rank);
        threads[index] = gettid();
        TROUPE_EXPECT_FAILS(aborted, operation(*ranks[index]));
        if (back.fetch_add(1) + 2 == size) last = steady_clock::now();
      });
    }
    const auto deadline = steady_clock::now() + std::chrono::seconds(30);
    for (std::size_t rank = 1; rank < threads.size(); ++rank) {
      while (threads[rank] == 0) std::this_thread::yield();
      EXPECT_TRUE(asleep_before(threads[rank], deadline)) << "rank " << rank;
    }
    start = steady_clock::now();
    ranks[0]->abort();
  });
  return last - start;
}

TEST(ThreadGroup, AbortEndsTheWaitsOfAllRanksAtOnce) {
  const std::vector<std::pair<std::string, call>> operations = {
      {"barrier", [](collective& group) { return group.barrier(epoch); }},
      {"all_reduce_sum of 8 KiB",
       [](collective& group) {
         std::vector<float> values(2048);
         return group.all_reduce_sum(epoch, values);
       }},
      {"all_reduce_sum of 4 MiB",
       [](collective& group) {
         std::vector<float> values(1 << 20);
         return group.all_reduce_sum(epoch, values);
       }},
      {"receive",
       [](collective& group) {
         std::vector<std::byte> bytes(8);
         return group.receive(epoch, 0, bytes);
       }},
      {"send of 1 MiB",
       [](collective& group) {
         const std::vector<std::byte> bytes(1 << 20);
         return group.send(epoch, 0, bytes);
       }},
      {"send into a full channel",
       [](collective& group) {
         for (int message = 0; message < 4; ++message) {
           if (auto sent = group.send(epoch, 0, {}); !sent) return sent;
         }
         return group.send(epoch, 0, {});
       }},
  };
  for (const auto& [name, operation] : operations) {
    // Promised: 1 ms once scheduled. One quick round is proof that no wait sleeps on; a busy
    // machine may keep the threads off the cores in the others. What a call has begun to add it
    // ends, which takes ten times as long under ThreadSanitizer.
#ifdef __SANITIZE_THREAD__
    constexpr std::chrono::milliseconds quick{100};
#else
    constexpr std::chrono::milliseconds quick{10};
#endif
    const auto deadline = steady_clock::now() + std::chrono::seconds(20);
    auto best = steady_clock::duration::max();
    while (best >= quick && steady_clock::now() < deadline) {
      best = std::min(best, time_abort(8, operation));
    }
    EXPECT_LT(best, quick) << name;
  }
}

// The ranks free their buffers as soon as a call returns: ThreadSanitizer sees whether another rank
// was still reading them. Long calls, so that most of the time somebody reads.
TEST(ThreadGroup, AbortInTheMiddleLeavesNobodyReadingFreedMemory) {
  for (std::uint64_t round = 0; round < 40; ++round) {
    auto ranks = make_thread_group(4, epoch);
    std::atomic<std::uint64_t> done{0};
    within(std::chrono::seconds(60), [&] {
      std::jthread aborter([&] {
        while (done.load() < round % 10) std::this_thread::yield();
        ranks[round % 4]->abort();
      });
      run_threads(ranks, [&](collective& group) {
        for (;;) {
          auto values = std::make_unique<std::vector<float>>(1 << 20, 1.0F);
          if (!group.all_reduce_sum(epoch, *values)) break;
          auto all = std::make_unique<std::vector<std::byte>>(4 << 20);
          const auto mine = std::make_unique<std::vector<std::byte>>(1 << 20);
          if (!group.all_gather(epoch, *mine, *all)) break;
          const auto message = std::make_unique<std::vector<std::byte>>(4 << 20);
          const bool sends = group.rank() % 2 == 0;
          const int other = group.rank() ^ 1;
          if (!(sends ? group.send(epoch, other, *message)
                      : group.receive(epoch, other, *message))) {
            break;
          }
          done.fetch_add(1);
        }
      });
    });
  }
}

TEST(ThreadGroup, RankWhoseHandleIsGoneIsUnavailable) {
  auto ranks = make_thread_group(3, epoch);
  within(std::chrono::seconds(60), [&] {
    std::vector<std::jthread> threads;
    threads.emplace_back([&] { TROUPE_EXPECT_FAILS(unavailable, ranks[0]->barrier(epoch)); });
    threads.emplace_back([&] {
      std::vector<std::byte> bytes(8);
      TROUPE_EXPECT_OK(ranks[1]->receive(epoch, 2, bytes));  // sent before the end
      TROUPE_EXPECT_FAILS(unavailable, ranks[1]->receive(epoch, 2, bytes));
      TROUPE_EXPECT_FAILS(unavailable, ranks[1]->send(epoch, 2, bytes));
      TROUPE_EXPECT_FAILS(unavailable, ranks[1]->barrier(epoch));
    });
    threads.emplace_back([&] {
      TROUPE_EXPECT_OK(ranks[2]->send(epoch, 1, std::vector<std::byte>(8)));
      ranks[2].reset();
    });
  });
}

// The last call of a rank succeeds for all, however early one of them destroys its handle.
TEST(ThreadGroup, LeavingAfterTheLastCallDisturbsNobody) {
  for (int round = 0; round < 200; ++round) {
    auto ranks = make_thread_group(4, epoch);
    std::vector<std::jthread> threads;
    for (auto& rank : ranks) {
      threads.emplace_back([&rank, round] {
        std::vector<float> values(round % 2 == 0 ? 16 : 5000, 1.0F);
        TROUPE_EXPECT_OK(rank->all_reduce_sum(epoch, values));
        rank.reset();
      });
    }
  }
}

}  // namespace
}  // namespace troupe::transport::testing
