#include "engine/device_groups.hpp"

#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "tests/engine/simulated_devices.hpp"
#include "transport/groups.hpp"

namespace troupe::engine {
namespace {

using engine_testing::simulated_device;
using engine_testing::simulated_fabric;

constexpr base::epoch_id epoch{7, 1};

// Ranks of one host, each with a device of its own, unless a test changes them.
class DeviceGroups : public ::testing::Test {
 protected:
  using formed = base::result<std::unique_ptr<transport::collective>>;

  void add(const std::string& address) {
    devices_.push_back(
        std::make_unique<simulated_device>(fabric_, kernels::device_place{"host", address}));
  }
  simulated_device& device(std::size_t rank) { return *devices_[rank]; }

  // Forms the group on every rank, then sums 1, 2, 4, ... over it where it was formed.
  void form(device_collectives choice = device_collectives::automatic) {
    const std::size_t ranks = devices_.size();
    world_ =
        transport::make_thread_world({.tp_size = static_cast<int>(ranks), .pp_size = 1}, epoch);
    sums_.assign(ranks, 0.0F);
    errors_.assign(ranks, base::error_code{});
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] { form_rank(rank, choice); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  simulated_fabric fabric_;
  std::vector<std::unique_ptr<simulated_device>> devices_;
  std::atomic<bool> over_{false};
  std::vector<transport::rank_groups> world_;
  std::vector<float> sums_;
  std::vector<base::error_code> errors_;
  std::mutex mutex_;
  std::vector<std::string> log_;

 private:
  void form_rank(std::size_t rank, device_collectives choice) {
    kernels::queue queue;
    auto group = form_device_group(*world_[rank].tp, {.on = *devices_[rank],
                                                      .queue = queue,
                                                      .epoch = epoch,
                                                      .choice = choice,
                                                      .name = "test",
                                                      .over = &over_,
                                                      .log = [&](const std::string& line) {
                                                        const std::scoped_lock lock(mutex_);
                                                        log_.push_back(line);
                                                      }});
    base::result<void> used = group ? use(**group, rank) : tl::unexpected(group.error());
    if (used) return;
    errors_[rank] = used.error().code;
    // As the executors do after a failed step.
    if (errors_[rank] == base::error_code::aborted) world_[rank].tp->abort();
  }

  base::result<void> use(transport::collective& group, std::size_t rank) {
    sums_[rank] = static_cast<float>(1U << rank);
    TROUPE_TRY_VOID(group.all_reduce_sum(epoch, std::span(&sums_[rank], 1)));
    return group.barrier(epoch);  // also: the device is done
  }
};

TEST_F(DeviceGroups, MeetOnTheirDevices) {
  for (const char* const address : {"1", "2", "3", "4"}) add(address);
  form();
  EXPECT_EQ(sums_, (std::vector<float>(4, 15.0F)));
  for (std::size_t rank = 0; rank < 4; ++rank) EXPECT_EQ(device(rank).groups_made, 1);
  EXPECT_EQ(log_, std::vector<std::string>{"test group: device to device by simulated 1.0"});
}

TEST_F(DeviceGroups, AreMadeAnewInTheNextEpoch) {
  add("1");
  add("2");
  form();
  form();
  EXPECT_EQ(sums_, (std::vector<float>(2, 3.0F)));
  EXPECT_EQ(device(1).groups_made, 2);
  EXPECT_EQ(fabric_.wires.size(), 2U);  // by ids of their own
}

TEST_F(DeviceGroups, GoThroughTheHostWhereTwoRanksShareADevice) {
  add("1");
  add("1");
  form();
  EXPECT_EQ(sums_, (std::vector<float>(2, 3.0F)));
  EXPECT_EQ(device(0).groups_made, 0);
  EXPECT_EQ(log_, std::vector<std::string>{"test group: through host memory: ranks 0 and 1 of the "
                                           "group share the device 1"});
}

TEST_F(DeviceGroups, GoThroughTheHostWhereOneRankHasNoLibrary) {
  add("1");
  add("2");
  device(1).library.clear();
  form();
  EXPECT_EQ(sums_, (std::vector<float>(2, 3.0F)));
  EXPECT_EQ(device(0).groups_made, 0);
}

TEST_F(DeviceGroups, GoThroughTheHostTogetherWhereOneRankCannotJoin) {
  for (const char* const address : {"1", "2", "3", "4"}) add(address);
  device(2).joins = false;
  form();
  EXPECT_EQ(sums_, (std::vector<float>(4, 15.0F)));
}

TEST_F(DeviceGroups, LoadNothingWhereTheHostIsAskedFor) {
  add("1");
  add("2");
  form(device_collectives::host);
  EXPECT_EQ(sums_, (std::vector<float>(2, 3.0F)));
  EXPECT_TRUE(fabric_.wires.empty());
}

TEST_F(DeviceGroups, AreAnErrorWhereNcclIsAskedForAndCannotBe) {
  add("1");
  add("1");
  form(device_collectives::nccl);
  EXPECT_EQ(errors_, (std::vector(2, base::error_code::failed_precondition)));
}

TEST_F(DeviceGroups, FormNoMoreWhenTheEpochIsOver) {
  add("1");
  add("2");
  over_ = true;
  form();
  EXPECT_EQ(errors_, (std::vector(2, base::error_code::aborted)));
}

}  // namespace
}  // namespace troupe::engine
