// A peer whose part of the segment is corrupt: an error, never an access outside, never a wait that
// nothing ends. The test plays rank 1 by hand; rank 0 is real.
#include "tests/transport/group_runner.hpp"
#include "transport/shared_memory_peers.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

namespace troupe::transport::testing {
namespace {

using base::error_code;

// A sum of two ranks that goes over boards, in two parts.
constexpr std::size_t board_floats = board_bytes / sizeof(float) + 100;
constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

class hostile_pair {
 public:
  hostile_pair() {
    auto made = make_shared_segment(epoch, 2);
    segment_ = std::move(*shared_segment::map(std::move(*made), epoch, 2));
    segment_->rank(1).state = shared_seat_state::attached;
    plane_ = std::move(*make_shared_memory(
        {.epoch = epoch, .rank = 0, .shape = {.tp_size = 2, .pp_size = 1}}, segment_));
    groups_ = std::move(*plane_->connect({}, std::chrono::seconds(10)));
  }

  collective& group() { return *groups_.world; }
  shared_segment& segment() { return *segment_; }
  data_plane& plane() { return *plane_; }
  // Rank 0 sleeps until rank 1 does something.
  bool waits() { return segment_->rank(0).awaits != 0; }

  // What rank 1 would send in `send(epoch, 0, bytes)` at its ring's start, but for `change`.
  template <class Change>
  void put(std::uint64_t at, std::span<const std::byte> bytes, Change change) {
    shared_message_header header{.epoch = epoch,
                                 .size = bytes.size(),
                                 .number = 0,
                                 .kind = static_cast<std::uint8_t>(operation::send_receive),
                                 .round = 0,
                                 .group = 0,
                                 .mark = 0xa5,
                                 .payload = {}};
    std::byte* ring = segment_->ring(1, 0);
    if (bytes.size() <= inline_bytes_max) {
      std::copy(bytes.begin(), bytes.end(), header.payload.begin());
    } else {
      std::copy(bytes.begin(), bytes.end(), ring + at + ring_line);
    }
    change(header);
    std::memcpy(ring + at, &header, sizeof header);
  }

 private:
  std::shared_ptr<shared_segment> segment_;
  std::unique_ptr<data_plane> plane_;
  rank_groups groups_;
};

constexpr auto unchanged = [](shared_message_header&) {};

// Without this the others could pass for a wrong reason.
TEST(SharedMemoryHostile, AMessageMadeByHandArrives) {
  for (const std::size_t count : {0UL, 8UL, 32UL, 33UL, 1000UL}) {
    hostile_pair pair;
    pair.put(0, pattern(1, 1, 0, count), unchanged);
    pair.segment().indices(1, 0).head = count <= 32 ? 64 : 64 + (count + 63) / 64 * 64;
    std::vector<std::byte> bytes(count);
    TROUPE_EXPECT_OK(pair.group().receive(epoch, 1, bytes));
    EXPECT_EQ(bytes, pattern(1, 1, 0, count));
  }
}

TEST(SharedMemoryHostile, ImpossibleIndicesAreDataLoss) {
  const std::uint64_t ring = ring_bytes(2);
  for (const std::uint64_t head : {ring + 64, std::uint64_t{1}, std::uint64_t{63}, most, most - 63,
                                   std::uint64_t{1} << 63, std::uint64_t{1} << 32}) {
    hostile_pair pair;
    pair.put(0, pattern(1, 1, 0, 8), unchanged);
    pair.segment().indices(1, 0).head = head;
    std::vector<std::byte> bytes(8);
    TROUPE_EXPECT_FAILS(data_loss, pair.group().receive(epoch, 1, bytes));
    TROUPE_EXPECT_FAILS(aborted, pair.group().barrier(epoch));
  }
  for (const std::uint64_t tail : {ring + 64, ring * 2, std::uint64_t{1}, most, most - 63}) {
    hostile_pair pair;
    pair.segment().indices(0, 1).tail = tail;
    const std::vector<std::byte> bytes(ring + 4096);  // more than fits: it must look
    TROUPE_EXPECT_FAILS(data_loss, pair.group().send(epoch, 1, bytes));
  }
}

TEST(SharedMemoryHostile, AnIndexThatGoesBackIsDataLoss) {
  hostile_pair pair;
  pair.put(0, pattern(1, 1, 0, 8), unchanged);
  pair.segment().indices(1, 0).head = 128;  // and what could be a second message
  std::vector<std::byte> bytes(8);
  TROUPE_EXPECT_OK(pair.group().receive(epoch, 1, bytes));
  pair.segment().indices(1, 0).head = 64;
  TROUPE_EXPECT_FAILS(data_loss, pair.group().receive(epoch, 1, bytes));
}

TEST(SharedMemoryHostile, AHeaderThatLiesIsFound) {
  const auto expect = [](auto change, error_code code) {
    hostile_pair pair;
    pair.put(0, pattern(1, 1, 0, 100), change);
    pair.segment().indices(1, 0).head = ring_bytes(2);
    std::vector<std::byte> bytes(100);
    const auto outcome = pair.group().receive(epoch, 1, bytes);
    ASSERT_FALSE(outcome.has_value());
    EXPECT_EQ(outcome.error().code, code) << error_of(outcome);
  };
  expect([](shared_message_header& header) { header.mark = 0; }, error_code::data_loss);
  expect([](shared_message_header& header) { header.size = most; }, error_code::invalid_argument);
  expect([](shared_message_header& header) { header.size = 99; }, error_code::invalid_argument);
  expect([](shared_message_header& header) { header.kind = 200; }, error_code::invalid_argument);
  expect([](shared_message_header& header) { header.round = 1; }, error_code::invalid_argument);
  expect([](shared_message_header& header) { header.group = 2; }, error_code::invalid_argument);
  expect([](shared_message_header& header) { header.number = 7; }, error_code::invalid_argument);
  expect(
      [](shared_message_header& header) {
        header.epoch.number -= 1;
        header.size = most;
      },
      error_code::data_loss);
}

TEST(SharedMemoryHostile, MessagesOfAnotherEpochAreDroppedAndCounted) {
  hostile_pair pair;
  const auto stale = [](shared_message_header& header) { header.epoch.number -= 1; };
  pair.put(0, pattern(9, 1, 0, 100), stale);  // a header and two lines
  pair.put(192, pattern(9, 1, 0, 8), stale);
  pair.put(256, pattern(1, 1, 0, 100), unchanged);
  pair.segment().indices(1, 0).head = 448;
  std::vector<std::byte> bytes(100);
  TROUPE_EXPECT_OK(pair.group().receive(epoch, 1, bytes));
  EXPECT_EQ(bytes, pattern(1, 1, 0, 100));
  const data_plane_counters counted = pair.plane().counters();
  EXPECT_EQ(counted.stale_messages, 2U);
  EXPECT_EQ(counted.bytes_received, 100U);
  EXPECT_EQ(counted.bytes_sent, 0U);
}

TEST(SharedMemoryHostile, AnImpossibleCountOfBoardsIsDataLoss) {
  for (const std::uint64_t posted : {std::uint64_t{3}, most}) {
    hostile_pair pair;
    pair.segment().count(1, 0).posted = posted;
    std::vector<float> values(board_floats);
    TROUPE_EXPECT_FAILS(data_loss, pair.group().all_reduce_sum(epoch, values));
  }
  hostile_pair pair;  // a count that fits, without a board
  pair.segment().count(1, 0).posted = 1;
  std::vector<float> values(board_floats);
  TROUPE_EXPECT_FAILS(invalid_argument, pair.group().all_reduce_sum(epoch, values));
}

// Everything that rank 1 can write is random, near what could be right; rank 0's call ends by
// itself, or sleeps until the epoch ends. AddressSanitizer watches over the bounds.
TEST(SharedMemoryHostile, RandomCorruptionEndsInAnErrorOrAWait) {
  int errors = 0;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto number = [&] {
      const std::uint64_t wide = random();
      switch (random() % 4) {
        case 0:
          return wide;
        case 1:
          return wide % (2 * ring_bytes(2));
        case 2:
          return wide % 64 * 64;
        default:
          return most - wide % 1000;
      }
    };
    hostile_pair pair;
    shared_segment& segment = pair.segment();
    for (std::uint64_t at = 0; at < ring_bytes(2); at += 64) {
      pair.put(at, pattern(seed, 1, 0, 8), [&](shared_message_header& header) {
        if (random() % 2 == 0) header.size = number();
        if (random() % 4 == 0) header.epoch.number = random() % 4;
        if (random() % 8 == 0) header.mark = static_cast<std::uint8_t>(random());
      });
    }
    segment.indices(1, 0).head = number();
    segment.indices(0, 1).tail = random() % 2 == 0 ? 0 : number();
    for (int group = 0; group < shared_groups; ++group) {
      segment.count(1, group).posted = random() % 4 == 0 ? number() : random() % 3;
    }
    base::result<void> outcome;
    std::atomic<bool> done{false};
    within(std::chrono::seconds(60), [&] {
      std::jthread rank([&] {
        std::vector<std::byte> bytes(8);
        std::vector<std::byte> many(ring_bytes(2) * 2);
        std::vector<float> values(random() % 2 == 0 ? 100 : board_floats);
        while (outcome) {
          switch (random() % 4) {
            case 0:
              outcome = pair.group().receive(epoch, 1, bytes);
              break;
            case 1:
              outcome = pair.group().all_reduce_sum(epoch, values);
              break;
            case 2:
              outcome = pair.group().all_gather(epoch, std::span(many).first(ring_bytes(2)), many);
              break;
            default:
              outcome = pair.group().send(epoch, 1, bytes);
              break;
          }
        }
        done = true;
      });
      while (!done && !pair.waits()) std::this_thread::yield();
      pair.plane().abort();
    });
    ASSERT_FALSE(outcome.has_value());
    const error_code code = outcome.error().code;
    EXPECT_TRUE(code == error_code::aborted || code == error_code::data_loss ||
                code == error_code::invalid_argument)
        << error_of(outcome);
    errors += code != error_code::aborted ? 1 : 0;
  }
  EXPECT_GT(errors, 100);
}

}  // namespace
}  // namespace troupe::transport::testing
