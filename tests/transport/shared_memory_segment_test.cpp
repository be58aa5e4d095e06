// What a segment is, who may map it, and what happens when its content is not what it should be.
#include "transport/shared_memory_segment.hpp"

#include "tests/transport/group_runner.hpp"
#include "transport/shared_memory_ring.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

namespace troupe::transport::testing {
namespace {

using base::error_code;

base::fd segment_of(int ranks) { return std::move(*make_shared_segment(epoch, ranks)); }

base::fd copy_of(const base::fd& descriptor) { return base::fd(::dup(descriptor.get())); }

data_plane_seat seat_of(int rank, int ranks) {
  return {.epoch = epoch, .rank = rank, .shape = {.tp_size = ranks, .pp_size = 1}};
}

std::size_t resident_bytes(const base::fd& segment) {
  struct stat status {};
  EXPECT_EQ(::fstat(segment.get(), &status), 0);
  return static_cast<std::size_t>(status.st_blocks) * 512;
}

TEST(SharedSegment, IsPrivateSealedAndAsLargeAsItSays) {
  for (const int ranks : {1, 2, 8, 64}) {
    const base::fd segment = segment_of(ranks);
    struct stat status {};
    ASSERT_EQ(::fstat(segment.get(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600U);
    EXPECT_EQ(static_cast<std::size_t>(status.st_size), shared_segment_bytes(ranks));
    EXPECT_NE(::ftruncate(segment.get(), 4096), 0);
    EXPECT_NE(::ftruncate(segment.get(), status.st_size * 2), 0);
    EXPECT_EQ(::fcntl(segment.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
  TROUPE_EXPECT_FAILS(invalid_argument, make_shared_segment(epoch, 0));
  TROUPE_EXPECT_FAILS(invalid_argument, make_shared_segment(epoch, 65));
}

TEST(SharedSegment, CostsTheMemoryThatIsTouched) {
  const base::fd segment = segment_of(64);
  EXPECT_GT(shared_segment_bytes(64), std::size_t{256} << 20);
  auto mapped = shared_segment::map(copy_of(segment), epoch, 64);
  ASSERT_TRUE(mapped.has_value());
  EXPECT_LE(resident_bytes(segment), std::size_t{16} << 10);
  // 64 ranks that add 8 KiB and meet: their lines, three pages of a board and one of six rings
  // each.
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < 64; ++rank) {
    threads.emplace_back([&, rank] {
      auto plane = make_shared_memory(seat_of(rank, 64), *mapped);
      auto groups = (*plane)->connect({}, std::chrono::seconds(60));
      ASSERT_TRUE(groups.has_value()) << groups.error().message;
      std::vector<float> values(2048, 1.0F);
      TROUPE_EXPECT_OK(groups->world->all_reduce_sum(epoch, values));
      EXPECT_EQ(values[2047], 64.0F);
      TROUPE_EXPECT_OK(groups->world->barrier(epoch));
    });
  }
  threads.clear();
  EXPECT_LE(resident_bytes(segment), std::size_t{8} << 20);
}

TEST(SharedSegment, OfAnotherEpochIsAborted) {
  const base::fd segment = segment_of(2);
  for (const base::epoch_id other : {base::epoch_id{epoch.incarnation, epoch.number + 1},
                                     base::epoch_id{epoch.incarnation + 1, epoch.number}}) {
    auto seat = seat_of(0, 2);
    seat.epoch = other;
    TROUPE_EXPECT_FAILS(aborted, open_shared_memory(seat, copy_of(segment)));
    seat.shape.tp_size = 4;  // the epoch is named, not the shape that changed with it
    TROUPE_EXPECT_FAILS(aborted, open_shared_memory(seat, copy_of(segment)));
  }
}

TEST(SharedSegment, OfAnotherShapeIsRefused) {
  const base::fd segment = segment_of(2);
  TROUPE_EXPECT_FAILS(invalid_argument, open_shared_memory(seat_of(0, 4), copy_of(segment)));
  TROUPE_EXPECT_FAILS(invalid_argument, open_shared_memory(seat_of(2, 2), copy_of(segment)));
  TROUPE_EXPECT_FAILS(invalid_argument, open_shared_memory(seat_of(-1, 2), copy_of(segment)));
  TROUPE_EXPECT_FAILS(invalid_argument, open_shared_memory(seat_of(0, 0), copy_of(segment)));
  TROUPE_EXPECT_FAILS(invalid_argument, open_shared_memory(seat_of(0, 65), copy_of(segment)));
}

TEST(SharedSegment, DescriptorsOfOtherThingsAreRefused) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const base::fd read_end(ends[0]);
  const base::fd write_end(ends[1]);
  const auto bytes = static_cast<off_t>(shared_segment_bytes(2));
  base::fd unsealed(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), bytes), 0);
  base::fd zeros(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(zeros.get(), bytes), 0);
  ASSERT_EQ(::fcntl(zeros.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  base::fd empty(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::fcntl(empty.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  const base::fd none;
  for (const base::fd* wrong : std::initializer_list<const base::fd*>{
           &read_end, &write_end, &unsealed, &zeros, &empty, &none}) {
    TROUPE_EXPECT_FAILS(invalid_argument, open_shared_memory(seat_of(0, 2), copy_of(*wrong)));
    TROUPE_EXPECT_FAILS(invalid_argument, shared_segment_watch::open(wrong->get()));
  }
}

// The header is the supervisor's, but a rank believes none of it that could lead it out of bounds.
TEST(SharedSegment, AHeaderThatLiesIsRefused) {
  const auto with = [](auto change, auto expect) {
    const base::fd segment = segment_of(2);
    auto mapped = shared_segment::map(copy_of(segment), epoch, 2);
    ASSERT_TRUE(mapped.has_value());
    change((*mapped)->control());
    expect(open_shared_memory(seat_of(0, 2), copy_of(segment)));
  };
  const auto refused = [](auto outcome) {
    TROUPE_EXPECT_FAILS(invalid_argument, std::move(outcome));
  };
  with([](shared_control& control) { control.magic ^= 1; }, refused);
  with([](shared_control& control) { control.version += 1; }, refused);
  with([](shared_control& control) { control.ranks = 64; }, refused);
  with([](shared_control& control) { control.ranks = 0; }, refused);
}

TEST(SharedSegment, ConnectNamesTheRanksThatDidNotCome) {
  const base::fd segment = segment_of(4);
  auto plane = open_shared_memory(seat_of(2, 4), copy_of(segment));
  ASSERT_TRUE(plane.has_value());
  EXPECT_TRUE((*plane)->address().empty());
  const auto groups = (*plane)->connect({}, std::chrono::milliseconds(20));
  ASSERT_FALSE(groups.has_value());
  EXPECT_EQ(groups.error().code, error_code::unavailable);
  EXPECT_NE(groups.error().message.find("0, 1, 3"), std::string::npos) << groups.error().message;
}

TEST(SharedSegment, ASeatIsTakenOnce) {
  const base::fd segment = segment_of(1);
  auto first = open_shared_memory(seat_of(0, 1), copy_of(segment));
  ASSERT_TRUE((*first)->connect({}, std::chrono::seconds(10)).has_value());
  auto second = open_shared_memory(seat_of(0, 1), copy_of(segment));
  TROUPE_EXPECT_FAILS(already_exists, (*second)->connect({}, std::chrono::seconds(10)));
  second->reset();  // it has no seat to leave
  first->reset();
  auto third = open_shared_memory(seat_of(0, 1), copy_of(segment));
  TROUPE_EXPECT_FAILS(already_exists, (*third)->connect({}, std::chrono::seconds(10)));
}

TEST(SharedSegment, AbortEndsConnect) {
  for (const bool from_outside : {false, true}) {
    const base::fd segment = segment_of(2);
    auto plane = open_shared_memory(seat_of(0, 2), copy_of(segment));
    auto watch = shared_segment_watch::open(segment.get());
    ASSERT_TRUE(watch.has_value());
    EXPECT_FALSE(watch->aborted());
    auto mapped = shared_segment::map(copy_of(segment), epoch, 2);
    within(std::chrono::seconds(60), [&] {
      std::jthread aborter([&] {
        while ((*mapped)->rank(0).awaits == 0) std::this_thread::yield();  // until it sleeps
        from_outside ? watch->abort() : (*plane)->abort();
      });
      TROUPE_EXPECT_FAILS(aborted, (*plane)->connect({}, std::chrono::hours(1)));
    });
    EXPECT_TRUE(watch->aborted());
    watch->abort();  // twice does no harm
  }
}

}  // namespace
}  // namespace troupe::transport::testing
