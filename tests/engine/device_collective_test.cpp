#include "engine/device_collective.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "transport/groups.hpp"

namespace troupe::engine {
namespace {

// A device whose memory the host cannot follow: addresses are moved by a distance that only its
// queue knows.
class far_queue final : public kernels::queue {
 public:
  explicit far_queue(std::span<std::byte> memory) : memory_(memory) {}
  std::byte* device_address(std::size_t offset) {
    return reinterpret_cast<std::byte*>(far) + offset;
  }
  base::result<void> read(const std::byte* from, std::span<std::byte> to) override {
    if (!to.empty()) std::memcpy(to.data(), memory_.data() + offset(from), to.size());
    return {};
  }
  base::result<void> write(std::span<const std::byte> from, std::byte* to) override {
    if (!from.empty()) std::memcpy(memory_.data() + offset(to), from.data(), from.size());
    return {};
  }

 private:
  static constexpr std::uintptr_t far = 0x10000;  // never mapped: following it would fault
  static std::size_t offset(const std::byte* at) {
    return reinterpret_cast<std::uintptr_t>(at) - far;
  }
  std::span<std::byte> memory_;
};

constexpr base::epoch_id epoch{7, 1};

// Runs body(rank, group, queue, memory as floats) on as many threads as ranks.
template <class Body>
void on_ranks(int ranks, const Body& body) {
  auto world = transport::make_thread_world({.tp_size = ranks, .pp_size = 1}, epoch);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<float> memory(64, -1.0F);
      far_queue queue(std::as_writable_bytes(std::span(memory)));
      const auto group = through_host(*world[static_cast<std::size_t>(rank)].tp, queue);
      EXPECT_EQ(group->rank(), rank);
      EXPECT_EQ(group->size(), ranks);
      body(rank, *group, queue, memory);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

std::span<float> floats_at(far_queue& queue, std::size_t first, std::size_t count) {
  return {reinterpret_cast<float*>(queue.device_address(first * 4)), count};
}
std::span<std::byte> bytes_at(far_queue& queue, std::size_t first, std::size_t count) {
  return {queue.device_address(first * 4), count * 4};
}

TEST(DeviceCollective, SumsWhatLiesOnTheDevices) {
  on_ranks(
      4, [](int rank, transport::collective& group, far_queue& queue, std::vector<float>& memory) {
        for (std::size_t i = 0; i < 8; ++i)
          memory[i + 3] = static_cast<float>(rank * 10 + static_cast<int>(i));
        ASSERT_TRUE(group.all_reduce_sum(epoch, floats_at(queue, 3, 8)).has_value());
        for (std::size_t i = 0; i < 8; ++i)
          EXPECT_EQ(memory[i + 3], 60.0F + 4 * static_cast<float>(i));
        EXPECT_EQ(memory[2], -1.0F);
        EXPECT_EQ(memory[11], -1.0F);
        ASSERT_TRUE(group.reduce_scatter_sum(epoch, floats_at(queue, 3, 8), floats_at(queue, 20, 2))
                        .has_value());
        EXPECT_EQ(memory[20], 4 * (60.0F + 8 * static_cast<float>(rank)));
      });
}

TEST(DeviceCollective, GathersInTheOrderOfTheRanks) {
  on_ranks(2, [](int rank, transport::collective& group, far_queue& queue,
                 std::vector<float>& memory) {
    memory[0] = static_cast<float>(rank);
    memory[1] = static_cast<float>(rank + 10);
    ASSERT_TRUE(group.all_gather(epoch, bytes_at(queue, 0, 2), bytes_at(queue, 8, 4)).has_value());
    EXPECT_EQ(std::vector<float>(memory.begin() + 8, memory.begin() + 12),
              (std::vector<float>{0, 10, 1, 11}));
    // Rank 1 has two floats, rank 0 none.
    const std::vector<std::size_t> counts{0, 8};
    ASSERT_TRUE(group
                    .all_gather_v(epoch, bytes_at(queue, 0, rank == 0 ? 0 : 2), counts,
                                  bytes_at(queue, 16, 2))
                    .has_value());
    EXPECT_EQ(memory[16], 1.0F);
    EXPECT_EQ(memory[17], 11.0F);
  });
}

TEST(DeviceCollective, CarriesWhatIsSentAndBroadcast) {
  on_ranks(
      2, [](int rank, transport::collective& group, far_queue& queue, std::vector<float>& memory) {
        if (rank == 0) {
          memory[5] = 42.0F;
          ASSERT_TRUE(group.send(epoch, 1, bytes_at(queue, 5, 1)).has_value());
        } else {
          ASSERT_TRUE(group.receive(epoch, 0, bytes_at(queue, 30, 1)).has_value());
          EXPECT_EQ(memory[30], 42.0F);
          memory[40] = 7.0F;
        }
        ASSERT_TRUE(group.broadcast(epoch, 1, bytes_at(queue, 40, 1)).has_value());
        EXPECT_EQ(memory[40], 7.0F);
        EXPECT_TRUE(group.barrier(epoch).has_value());
      });
}

TEST(DeviceCollective, AloneMovesNothingAndStillKnowsItsEpoch) {
  std::vector<float> memory(1);
  far_queue queue(std::as_writable_bytes(std::span(memory)));
  auto world = transport::make_thread_world({}, epoch);
  const auto group = through_host(*world[0].tp, queue);
  EXPECT_TRUE(group->all_reduce_sum(epoch, floats_at(queue, 1000, 50)).has_value());
  const auto stale = group->all_reduce_sum({7, 2}, {});
  ASSERT_FALSE(stale.has_value());
  EXPECT_EQ(stale.error().code, base::error_code::aborted);
}

}  // namespace
}  // namespace troupe::engine
