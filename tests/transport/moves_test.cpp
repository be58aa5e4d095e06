// Everything that moves bytes without adding them: gathers, all-to-all, broadcast, send, barrier.
#include "tests/transport/group_runner.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

namespace troupe::transport::testing {
namespace {

class Moves : public ::testing::TestWithParam<group_case> {};

INSTANTIATE_TEST_SUITE_P(All, Moves, ::testing::ValuesIn(cases_of({1, 2, 3, 5, 8})), case_name);

std::size_t total(std::span<const std::size_t> counts) {
  std::size_t sum = 0;
  for (const std::size_t count : counts) sum += count;
  return sum;
}

TEST_P(Moves, AllGatherConcatenatesInRankOrder) {
  for (const std::size_t count : {0UL, 1UL, 7UL, 16384UL, 16385UL, 300001UL}) {
    run_group(GetParam(), [&](collective& group) {
      const auto ranks = static_cast<std::size_t>(group.size());
      std::vector<std::byte> all(count * ranks);
      TROUPE_EXPECT_OK(group.all_gather(epoch, pattern(count, group.rank(), 0, count), all));
      for (std::size_t r = 0; r < ranks; ++r) {
        const auto expected = pattern(count, static_cast<int>(r), 0, count);
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(),
                               all.begin() + static_cast<std::ptrdiff_t>(r * count)))
            << "part " << r << " on rank " << group.rank() << ", " << count << " bytes";
      }
    });
  }
}

TEST_P(Moves, AllGatherMayWorkInPlace) {
  for (const std::size_t count : {100UL, 20000UL}) {
    run_group(GetParam(), [&](collective& group) {
      const auto ranks = static_cast<std::size_t>(group.size());
      std::vector<std::byte> all(count * ranks);
      const auto mine =
          std::span(all).subspan(static_cast<std::size_t>(group.rank()) * count, count);
      std::fill(mine.begin(), mine.end(), static_cast<std::byte>(group.rank() + 1));
      TROUPE_EXPECT_OK(group.all_gather(epoch, mine, all));
      for (std::size_t i = 0; i < all.size(); ++i) {
        ASSERT_EQ(all[i], static_cast<std::byte>(i / count + 1));
      }
    });
  }
}

TEST_P(Moves, AllGatherVTakesUnevenAndEmptyParts) {
  run_group(GetParam(), [&](collective& group) {
    std::vector<std::size_t> counts;
    // Rank 0 nothing, rank 1 short, rank 2 longer than a slot of the thread group ...
    for (int r = 0; r < group.size(); ++r) {
      counts.push_back(static_cast<std::size_t>(r % 4) * static_cast<std::size_t>(r) * 5003);
    }
    std::vector<std::byte> all(total(counts));
    const std::size_t own = counts[static_cast<std::size_t>(group.rank())];
    TROUPE_EXPECT_OK(group.all_gather_v(epoch, pattern(1, group.rank(), 0, own), counts, all));
    std::vector<std::byte> expected;
    for (int r = 0; r < group.size(); ++r) {
      const auto part = pattern(1, r, 0, counts[static_cast<std::size_t>(r)]);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    EXPECT_EQ(all, expected);
  });
}

TEST_P(Moves, AllToAllVDeliversEveryPartToItsRank) {
  // Some ranks send more than a slot holds, some nothing.
  const auto count_of = [](int from, int to) {
    return static_cast<std::size_t>((from * 7 + to * 3) % 5) * (from % 2 == 0 ? 31 : 6007);
  };
  run_group(GetParam(), [&](collective& group) {
    const int self = group.rank();
    std::vector<std::byte> send;
    std::vector<std::byte> expected;
    std::vector<std::size_t> send_counts;
    std::vector<std::size_t> receive_counts;
    for (int other = 0; other < group.size(); ++other) {
      send_counts.push_back(count_of(self, other));
      receive_counts.push_back(count_of(other, self));
      const auto out = pattern(2, self, other, send_counts.back());
      const auto in = pattern(2, other, self, receive_counts.back());
      send.insert(send.end(), out.begin(), out.end());
      expected.insert(expected.end(), in.begin(), in.end());
    }
    std::vector<std::byte> received(expected.size());
    TROUPE_EXPECT_OK(group.all_to_all_v(epoch, send, send_counts, received, receive_counts));
    EXPECT_EQ(received, expected);
  });
}

TEST_P(Moves, BroadcastCopiesFromAnyRoot) {
  for (const std::size_t count : {0UL, 3UL, 16384UL, 600001UL}) {
    run_group(GetParam(), [&](collective& group) {
      for (int root = 0; root < group.size(); ++root) {
        std::vector<std::byte> bytes = pattern(count, group.rank(), root, count);
        TROUPE_EXPECT_OK(group.broadcast(epoch, root, bytes));
        EXPECT_EQ(bytes, pattern(count, root, root, count)) << "root " << root;
      }
    });
  }
}

TEST_P(Moves, BarrierReturnsWhenAllHaveCalledIt) {
  std::atomic<int> called{0};
  run_group(GetParam(), [&](collective& group) {
    for (int round = 1; round <= 50; ++round) {
      called.fetch_add(1);
      TROUPE_EXPECT_OK(group.barrier(epoch));
      EXPECT_GE(called.load(), round * group.size());
      TROUPE_EXPECT_OK(group.barrier(epoch));
    }
  });
}

TEST_P(Moves, SendsArriveInOrderAlongTheRanks) {
  constexpr int messages = 12;
  const auto length = [](int message) {
    constexpr std::size_t lengths[] = {0, 5, 65536, 65537, 700001, 64};
    return lengths[message % 6];
  };
  run_group(GetParam(), [&](collective& group) {
    // The pipeline's pattern: from the stage before, to the stage after.
    for (int message = 0; message < messages; ++message) {
      std::vector<std::byte> bytes = pattern(9, message, 0, length(message));
      if (group.rank() > 0) {
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
        TROUPE_EXPECT_OK(group.receive(epoch, group.rank() - 1, bytes));
      }
      EXPECT_EQ(bytes, pattern(9, message, 0, length(message))) << "message " << message;
      if (group.rank() + 1 < group.size()) {
        TROUPE_EXPECT_OK(group.send(epoch, group.rank() + 1, bytes));
      }
    }
  });
}

// The stated bound: four short messages of a pair wait in the channel, so two ranks that send
// before they receive do not block each other.
TEST(ThreadGroup, HoldsFourShortMessagesOfAPair) {
  run_group({implementation::threads, 2}, [](collective& group) {
    const int other = 1 - group.rank();
    for (int round = 0; round < 20; ++round) {
      for (int message = 0; message < 4; ++message) {
        TROUPE_EXPECT_OK(group.send(epoch, other, pattern(3, group.rank(), message, 65536)));
      }
      for (int message = 0; message < 4; ++message) {
        std::vector<std::byte> bytes(65536);
        TROUPE_EXPECT_OK(group.receive(epoch, other, bytes));
        EXPECT_EQ(bytes, pattern(3, other, message, 65536));
      }
    }
  });
}

}  // namespace
}  // namespace troupe::transport::testing
