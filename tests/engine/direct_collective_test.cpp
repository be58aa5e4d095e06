#include "engine/direct_collective.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "tests/engine/simulated_devices.hpp"
#include "transport/groups.hpp"
#include "transport/tree_sum.hpp"

namespace troupe::engine {
namespace {

using engine_testing::simulated_group;
using engine_testing::simulated_wire;

constexpr base::epoch_id epoch{7, 1};

std::vector<float> values_of(int rank, std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(rank) + 11);
  std::normal_distribution<float> draw(0.0F, 1000.0F);
  std::vector<float> made;
  for (std::size_t i = 0; i < count; ++i) made.push_back(draw(random));
  return made;
}

std::vector<float> tree_of(int ranks, std::size_t count) {
  std::vector<std::vector<float>> all;
  std::vector<const float*> sources;
  for (int rank = 0; rank < ranks; ++rank) all.push_back(values_of(rank, count));
  for (const auto& one : all) sources.push_back(one.data());
  std::vector<float> sum(count);
  transport::tree_sum(sources, sum);
  return sum;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

struct seat {
  int rank = 0;
  transport::collective& group;
  kernels::device_group& device;  // under it: what a queue's synchronize() would wait for
};

// Runs the body on as many threads as ranks, over a group made of simulated devices.
template <class Body>
void on_ranks(int ranks, std::size_t halving_bytes_min, const Body& body) {
  const auto wire = std::make_shared<simulated_wire>();
  auto world = transport::make_thread_world({.tp_size = ranks, .pp_size = 1}, epoch);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      auto device = std::make_unique<simulated_group>(
          wire, kernels::device_group_options{.rank = rank, .size = ranks});
      simulated_group& under = *device;
      const auto group =
          direct(std::move(device), {.host = *world[static_cast<std::size_t>(rank)].tp,
                                     .epoch = epoch,
                                     .halving_bytes_min = halving_bytes_min});
      EXPECT_EQ(group->rank(), rank);
      EXPECT_EQ(group->size(), ranks);
      body(seat{rank, *group, under});
    });
  }
  for (std::thread& thread : threads) thread.join();
}

constexpr std::size_t always = 0;
constexpr std::size_t never = std::size_t{1} << 40;

TEST(DirectCollective, SumsHaveTheBitsOfTheTreeAtEverySize) {
  for (const int ranks : {1, 2, 4, 8}) {
    for (const std::size_t halving : {always, never}) {
      on_ranks(ranks, halving, [&](const seat& at) {
        // Growing and shrinking: the scratch is reused and replaced.
        for (const std::size_t count : {5U, 1000U, 1U, 0U, 3U, 4097U, 64U}) {
          std::vector<float> values = values_of(at.rank, count);
          ASSERT_TRUE(at.group.all_reduce_sum(epoch, values).has_value());
          ASSERT_TRUE(at.device.wait().has_value());
          EXPECT_TRUE(same_bits(values, tree_of(ranks, count)))
              << ranks << " ranks, " << count << " floats";
        }
      });
    }
  }
}

TEST(DirectCollective, ReduceScatterLeavesEachRankItsPartOfTheTree) {
  for (const int ranks : {1, 2, 4, 8}) {
    on_ranks(ranks, never, [&](const seat& at) {
      for (const std::size_t each : {1U, 7U, 64U}) {
        const std::size_t count = each * static_cast<std::size_t>(ranks);
        std::vector<float> values = values_of(at.rank, count);
        const std::vector<float> wanted = tree_of(ranks, count);
        const auto own = std::span(values).subspan(each * static_cast<std::size_t>(at.rank), each);
        ASSERT_TRUE(at.group.reduce_scatter_sum(epoch, values, own).has_value());
        ASSERT_TRUE(at.device.wait().has_value());
        EXPECT_TRUE(same_bits(
            own, std::span(wanted).subspan(each * static_cast<std::size_t>(at.rank), each)));
      }
    });
  }
}

TEST(DirectCollective, GathersInTheOrderOfTheRanks) {
  on_ranks(4, never, [](const seat& at) {
    const std::array<float, 2> mine{static_cast<float>(at.rank), static_cast<float>(at.rank + 10)};
    std::array<float, 8> all{};
    ASSERT_TRUE(at.group
                    .all_gather(epoch, std::as_bytes(std::span(mine)),
                                std::as_writable_bytes(std::span(all)))
                    .has_value());
    // Rank 2 has none.
    const std::vector<std::size_t> counts{4, 8, 0, 12};
    const std::vector<float> part(counts[static_cast<std::size_t>(at.rank)] / 4,
                                  static_cast<float>(at.rank));
    std::array<float, 6> parts{};
    ASSERT_TRUE(at.group
                    .all_gather_v(epoch, std::as_bytes(std::span(part)), counts,
                                  std::as_writable_bytes(std::span(parts)))
                    .has_value());
    ASSERT_TRUE(at.device.wait().has_value());
    EXPECT_EQ(all, (std::array<float, 8>{0, 10, 1, 11, 2, 12, 3, 13}));
    EXPECT_EQ(parts, (std::array<float, 6>{0, 1, 1, 3, 3, 3}));
  });
}

TEST(DirectCollective, ExchangesPartsOfAnySize) {
  on_ranks(3, never, [](const seat& at) {
    // Rank r gives rank p the value 10 r + p, r + p times.
    std::vector<float> send;
    std::vector<std::size_t> send_counts;
    std::vector<float> wanted;
    std::vector<std::size_t> receive_counts;
    for (int peer = 0; peer < 3; ++peer) {
      const auto times = static_cast<std::size_t>(at.rank + peer);
      send.insert(send.end(), times, static_cast<float>(10 * at.rank + peer));
      send_counts.push_back(4 * times);
      wanted.insert(wanted.end(), times, static_cast<float>(10 * peer + at.rank));
      receive_counts.push_back(4 * times);
    }
    std::vector<float> received(wanted.size());
    ASSERT_TRUE(at.group
                    .all_to_all_v(epoch, std::as_bytes(std::span(send)), send_counts,
                                  std::as_writable_bytes(std::span(received)), receive_counts)
                    .has_value());
    ASSERT_TRUE(at.device.wait().has_value());
    EXPECT_EQ(received, wanted);
  });
}

TEST(DirectCollective, CarriesWhatIsSentAndBroadcast) {
  on_ranks(3, never, [](const seat& at) {
    float sent = static_cast<float>(at.rank);
    float told = at.rank == 2 ? 7.0F : 0.0F;
    const auto bytes = std::as_writable_bytes(std::span(&sent, 1));
    if (at.rank == 0) {
      ASSERT_TRUE(at.group.send(epoch, 1, bytes).has_value());
    }
    if (at.rank == 1) {
      ASSERT_TRUE(at.group.receive(epoch, 0, bytes).has_value());
    }
    ASSERT_TRUE(
        at.group.broadcast(epoch, 2, std::as_writable_bytes(std::span(&told, 1))).has_value());
    ASSERT_TRUE(at.group.barrier(epoch).has_value());
    EXPECT_EQ(told, 7.0F);
    EXPECT_EQ(sent, at.rank == 1 ? 0.0F : static_cast<float>(at.rank));
  });
}

TEST(DirectCollective, RefusesWhatCannotFitAndEndsTheGroup) {
  on_ranks(2, never, [](const seat& at) {
    std::array<float, 3> values{};
    const auto stale = at.group.all_reduce_sum({7, 2}, values);
    ASSERT_FALSE(stale.has_value());
    EXPECT_EQ(stale.error().code, base::error_code::aborted);
    const auto odd = at.group.reduce_scatter_sum(epoch, values, std::span(values).first(1));
    ASSERT_FALSE(odd.has_value());
    EXPECT_EQ(odd.error().code, base::error_code::invalid_argument);
    const auto after = at.group.all_reduce_sum(epoch, values);
    ASSERT_FALSE(after.has_value());
    EXPECT_EQ(after.error().code, base::error_code::aborted);
  });
}

TEST(DirectCollective, SumsOnlyWhereThereIsATree) {
  on_ranks(3, never, [](const seat& at) {
    std::array<float, 3> values{};
    const auto summed = at.group.all_reduce_sum(epoch, values);
    ASSERT_FALSE(summed.has_value());
    EXPECT_EQ(summed.error().code, base::error_code::invalid_argument);
    EXPECT_TRUE(at.group.barrier(epoch).has_value());  // nobody was left waiting
  });
}

TEST(DirectCollective, AbortEndsAWaitForAPeerThatNeverComes) {
  const auto wire = std::make_shared<simulated_wire>();
  auto world = transport::make_thread_world({.tp_size = 2, .pp_size = 1}, epoch);
  auto device =
      std::make_unique<simulated_group>(wire, kernels::device_group_options{.rank = 0, .size = 2});
  simulated_group& under = *device;
  const auto group = direct(std::move(device), {.host = *world[0].tp, .epoch = epoch});
  std::vector<float> values(100, 1.0F);
  ASSERT_TRUE(group->all_reduce_sum(epoch, values).has_value());  // enqueued
  std::thread other([&] { group->abort(); });
  const auto waited = under.wait();
  other.join();
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code, base::error_code::aborted);
  EXPECT_FALSE(group->broadcast(epoch, 0, std::as_writable_bytes(std::span(values))).has_value());
  EXPECT_FALSE(world[1].tp->barrier(epoch).has_value());  // the peer's host hears of it
}

}  // namespace
}  // namespace troupe::engine
