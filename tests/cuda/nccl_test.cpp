// NCCL on one GPU: groups of one rank, groups that never form, two ranks that share the GPU.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <random>
#include <thread>

#include "engine/device_groups.hpp"
#include "engine/direct_collective.hpp"
#include "tests/cuda/cuda_case.hpp"
#include "transport/groups.hpp"

namespace troupe::kernels::cuda_testing {
namespace {

constexpr base::epoch_id epoch{7, 1};

class Nccl : public cuda_test {
 protected:
  void SetUp() override {
    cuda_test::SetUp();
    if (IsSkipped()) return;
    const auto library = on().group_library();
    if (!library) GTEST_SKIP() << library.error().message;
  }

  // A group of this rank, of `size` ranks of which no other comes.
  base::result<std::unique_ptr<device_group>> join(device_group_options options) {
    TROUPE_TRY(id, on().make_group_id());
    options.id = id;
    return on().make_group(here(), options);
  }
  std::unique_ptr<device_group> alone() {
    auto made = join({.rank = 0, .size = 1});
    EXPECT_TRUE(made.has_value()) << made.error().message;
    return made ? *std::move(made) : nullptr;
  }
  std::span<float> put_floats(const std::vector<float>& host) {
    return {reinterpret_cast<float*>(put(host.data(), host.size() * sizeof(float))), host.size()};
  }
  std::vector<float> get_floats(std::span<const float> device) {
    std::vector<float> host(device.size());
    const auto read =
        here().read(std::as_bytes(device).data(), std::as_writable_bytes(std::span(host)));
    EXPECT_TRUE(read.has_value()) << read.error().message;
    return host;
  }
  static std::vector<float> drawn(std::size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> draw(0.0F, 1000.0F);
    std::vector<float> made;
    for (std::size_t i = 0; i < count; ++i) made.push_back(draw(random));
    return made;
  }
};

TEST_F(Nccl, SaysWhatItIs) {
  const auto library = on().group_library();
  ASSERT_TRUE(library.has_value());
  EXPECT_EQ(library->substr(0, 5), "NCCL ");
  const auto place = on().place();
  ASSERT_TRUE(place.has_value());
  EXPECT_FALSE(place->host.empty());
  EXPECT_NE(place->address.find(':'), std::string::npos) << place->address;
}

TEST_F(Nccl, OneRankGathersAndBroadcastsToItself) {
  const auto group = alone();
  ASSERT_NE(group, nullptr);
  const std::vector<float> values = drawn(1001, 1);
  const auto mine = put_floats(values);
  const auto all = put_floats(std::vector<float>(1001, -1.0F));
  ASSERT_TRUE(group->all_gather(std::as_bytes(mine), std::as_writable_bytes(all)).has_value());
  ASSERT_TRUE(group->broadcast(0, std::as_writable_bytes(all)).has_value());
  ASSERT_TRUE(group->exchange({}, {}).has_value());
  ASSERT_TRUE(group->wait().has_value());
  EXPECT_EQ(get_floats(all), values);
}

TEST_F(Nccl, AddsAtAnyAlignmentWithTheBitsOfTheCpu) {
  const auto group = alone();
  ASSERT_NE(group, nullptr);
  for (const std::size_t count : {0U, 1U, 3U, 255U, 257U, 100'003U}) {
    std::vector<float> values = drawn(count + 1, 2);
    const std::vector<float> addend = drawn(count + 2, 3);
    const auto device = put_floats(values);
    const auto other = put_floats(addend);
    ASSERT_TRUE(group->add(device.subspan(1), other.subspan(2)).has_value());
    ASSERT_TRUE(group->wait().has_value());
    for (std::size_t i = 0; i < count; ++i) values[i + 1] += addend[i + 2];
    EXPECT_EQ(get_floats(device), values) << count;
  }
}

TEST_F(Nccl, ComesAfterTheOpsBeforeIt) {
  const auto group = alone();
  ASSERT_NE(group, nullptr);
  host_matrix target(3, 64);
  host_matrix addend(3, 64);
  for (float& value : target.values) value = 1.0F;
  for (float& value : addend.values) value = 2.0F;
  const tensor_view device = put(target.view());
  run().add(here(), {.target = device, .addend = put(addend.view()), .bias = {}});
  const std::span<float> mine(device.row<float>(0), 192);
  const auto all = put_floats(std::vector<float>(192, 0.0F));
  ASSERT_TRUE(group->all_gather(std::as_bytes(mine), std::as_writable_bytes(all)).has_value());
  EXPECT_EQ(get_floats(all), std::vector<float>(192, 3.0F));
}

TEST_F(Nccl, TheHostMayBeFarAhead) {
  const auto group = alone();
  ASSERT_NE(group, nullptr);
  const auto values = put_floats(std::vector<float>(4096, 0.0F));
  const auto ones = put_floats(std::vector<float>(4096, 1.0F));
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(group->add(values, ones).has_value());
    ASSERT_TRUE(group->broadcast(0, std::as_writable_bytes(values)).has_value());
  }
  EXPECT_EQ(get_floats(values), std::vector<float>(4096, 200.0F));
}

TEST_F(Nccl, AbortEndsItAndTheNextEpochHasANewOne) {
  for (int number = 0; number < 3; ++number) {
    auto group = alone();
    ASSERT_NE(group, nullptr);
    const auto values = put_floats(drawn(64, 4));
    ASSERT_TRUE(group->broadcast(0, std::as_writable_bytes(values)).has_value());
    std::thread([&] { group->abort(); }).join();
    const auto after = group->broadcast(0, std::as_writable_bytes(values));
    ASSERT_FALSE(after.has_value());
    EXPECT_EQ(after.error().code, base::error_code::aborted);
    const auto waited = here().synchronize();
    ASSERT_FALSE(waited.has_value());
    EXPECT_EQ(waited.error().code, base::error_code::aborted);
    group.reset();
    EXPECT_TRUE(here().synchronize().has_value());  // the queue outlives its groups
  }
}

TEST_F(Nccl, OneGroupsEndLeavesTheOthersOfAnIdleQueue) {
  const auto tp = alone();
  auto pp = alone();
  ASSERT_TRUE(tp != nullptr && pp != nullptr);
  const std::vector<float> values = drawn(64, 6);
  const auto device = put_floats(values);
  ASSERT_TRUE(pp->broadcast(0, std::as_writable_bytes(device)).has_value());
  ASSERT_TRUE(tp->broadcast(0, std::as_writable_bytes(device)).has_value());
  ASSERT_TRUE(tp->wait().has_value());
  pp.reset();
  ASSERT_TRUE(tp->broadcast(0, std::as_writable_bytes(device)).has_value());
  EXPECT_EQ(get_floats(device), values);
}

TEST_F(Nccl, WaitsNoLongerThanItsPatienceForRanksThatDoNotCome) {
  const auto begun = std::chrono::steady_clock::now();
  const auto group = join({.rank = 0, .size = 2, .patience = std::chrono::milliseconds(500)});
  ASSERT_FALSE(group.has_value());
  EXPECT_EQ(group.error().code, base::error_code::deadline_exceeded) << group.error().message;
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
  EXPECT_TRUE(here().synchronize().has_value());
  EXPECT_NE(alone(), nullptr);
}

TEST_F(Nccl, TheEndOfTheEpochEndsTheWaitForRanksThatDoNotCome) {
  std::atomic<bool> over{false};
  std::thread ends([&] { over = true; });
  const auto group = join({.rank = 0, .size = 2, .over = &over});
  ends.join();
  ASSERT_FALSE(group.has_value());
  EXPECT_EQ(group.error().code, base::error_code::aborted) << group.error().message;
}

TEST_F(Nccl, CarriesTheCollectivesOfOneRank) {
  auto world = transport::make_thread_world({}, epoch);
  auto under = alone();
  ASSERT_NE(under, nullptr);
  const auto group =
      engine::direct(std::move(under), {.host = *world[0].tp, .on = &on(), .epoch = epoch});
  const std::vector<float> values = drawn(77, 5);
  const auto device = put_floats(values);
  const auto part = put_floats(std::vector<float>(77, 0.0F));
  ASSERT_TRUE(group->all_reduce_sum(epoch, device).has_value());
  ASSERT_TRUE(group->reduce_scatter_sum(epoch, device, part).has_value());
  EXPECT_EQ(get_floats(part), values);
  const std::vector<std::size_t> counts{77 * sizeof(float)};
  const auto gathered = put_floats(std::vector<float>(77, 0.0F));
  ASSERT_TRUE(
      group->all_gather_v(epoch, std::as_bytes(part), counts, std::as_writable_bytes(gathered))
          .has_value());
  ASSERT_TRUE(group->barrier(epoch).has_value());
  EXPECT_EQ(get_floats(gathered), values);
}

// As ranks of a machine with fewer GPUs than ranks.
TEST_F(Nccl, TwoRanksOnOneGpuGoThroughTheHost) {
  for (const auto choice :
       {engine::device_collectives::automatic, engine::device_collectives::nccl}) {
    auto world = transport::make_thread_world({.tp_size = 2, .pp_size = 1}, epoch);
    std::mutex mutex;
    std::vector<std::string> log;
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        auto device = open_cuda({});
        ASSERT_TRUE(device.has_value());
        auto queue = (*device)->make_queue();
        ASSERT_TRUE(queue.has_value());
        const auto group =
            engine::form_device_group(*world[rank].tp, {.on = **device,
                                                        .queue = **queue,
                                                        .epoch = epoch,
                                                        .choice = choice,
                                                        .name = "test",
                                                        .log = [&](const std::string& line) {
                                                          const std::scoped_lock lock(mutex);
                                                          log.push_back(line);
                                                        }});
        if (choice == engine::device_collectives::nccl) {
          ASSERT_FALSE(group.has_value());
          EXPECT_EQ(group.error().code, base::error_code::failed_precondition);
          return;
        }
        ASSERT_TRUE(group.has_value()) << group.error().message;
        auto memory = (*device)->allocate(sizeof(float), "a test");
        ASSERT_TRUE(memory.has_value());
        float value = static_cast<float>(rank + 1);
        const auto bytes = std::as_writable_bytes(std::span(&value, 1));
        ASSERT_TRUE((*queue)->write(bytes, memory->data()).has_value());
        ASSERT_TRUE((*group)
                        ->all_reduce_sum(epoch, {reinterpret_cast<float*>(memory->data()), 1})
                        .has_value());
        ASSERT_TRUE((*queue)->read(memory->data(), bytes).has_value());
        EXPECT_EQ(value, 3.0F);
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (choice == engine::device_collectives::nccl) continue;
    ASSERT_EQ(log.size(), 1U);
    EXPECT_NE(log[0].find("through host memory: ranks 0 and 1 of the group share the device"),
              std::string::npos)
        << log[0];
  }
}

}  // namespace
}  // namespace troupe::kernels::cuda_testing
