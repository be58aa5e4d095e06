// Gangs over UCX on loopback TCP, one thread a rank.
#pragma once

#include "transport/ucx_data_plane.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace troupe::transport::testing {

// Once a process, before UCX is loaded. A test may have set variables before.
inline void prepare_ucx_for_tests() {
  static const bool prepared = prepare_ucx_environment({.interface = "lo"}).has_value();
  ASSERT_TRUE(prepared);
}

struct ucx_gang_options {
  world_shape shape;
  base::epoch_id epoch{.incarnation = 0xabc, .number = 3};
  message_options messages = {};
  std::chrono::milliseconds patience = std::chrono::seconds(60);
};

// Opened and not yet connected.
class ucx_gang {
 public:
  explicit ucx_gang(ucx_gang_options options) : options_(options) {
    prepare_ucx_for_tests();
    for (int rank = 0; rank < size(); ++rank) planes_.push_back(open(rank).value());
    for (const auto& plane : planes_) addresses_.push_back(plane->address());
  }

  [[nodiscard]] int size() const { return options_.shape.tp_size * options_.shape.pp_size; }
  [[nodiscard]] data_plane& plane(int rank) { return *planes_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::vector<data_plane_address>& addresses() { return addresses_; }

  [[nodiscard]] base::result<std::unique_ptr<data_plane>> open(int rank) const {
    return open_ucx({.epoch = options_.epoch, .rank = rank, .shape = options_.shape},
                    {.messages = options_.messages});
  }

  // Takes a rank out: its data plane is destroyed.
  void close(int rank) { planes_[static_cast<std::size_t>(rank)].reset(); }

  // Connects every rank, then runs the body on all at once. A rank that does not connect fails the
  // test.
  void run(const std::function<void(int, rank_groups&)>& body) {
    std::latch connected(size());
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < size(); ++rank) {
      threads.emplace_back([this, rank, &body, &connected] {
        auto groups = plane(rank).connect(addresses_, options_.patience);
        connected.arrive_and_wait();
        ASSERT_TRUE(groups) << groups.error().message;
        body(rank, *groups);
      });
    }
  }

 private:
  ucx_gang_options options_;
  std::vector<std::unique_ptr<data_plane>> planes_;
  std::vector<data_plane_address> addresses_;
};

}  // namespace troupe::transport::testing
