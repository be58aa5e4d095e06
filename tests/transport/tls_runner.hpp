// Gangs over TLS on loopback, one thread a rank.
#pragma once

#include "base/tls.hpp"
#include "transport/tls_data_plane.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace troupe::transport::testing {

struct tls_gang_options {
  world_shape shape;
  base::epoch_id epoch{.incarnation = 0xabc, .number = 3};
  message_options messages = {};
  std::chrono::milliseconds patience = std::chrono::seconds(60);
};

// Opened and not yet connected.
class tls_gang {
 public:
  explicit tls_gang(tls_gang_options options)
      : options_(options), credentials_(base::make_gang_credentials().value()) {
    for (int rank = 0; rank < size(); ++rank) planes_.push_back(open(rank).value());
    for (const auto& plane : planes_) addresses_.push_back(plane->address());
  }

  [[nodiscard]] int size() const { return options_.shape.tp_size * options_.shape.pp_size; }
  [[nodiscard]] const base::gang_credentials& credentials() const { return credentials_; }
  [[nodiscard]] data_plane& plane(int rank) { return *planes_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::vector<data_plane_address>& addresses() { return addresses_; }
  [[nodiscard]] std::chrono::milliseconds patience() const { return options_.patience; }

  [[nodiscard]] base::result<std::unique_ptr<data_plane>> open(int rank) const {
    return open_tls(
        {.epoch = options_.epoch, .rank = rank, .shape = options_.shape},
        {.credentials = &credentials_, .host = "127.0.0.1", .messages = options_.messages});
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
  tls_gang_options options_;
  base::gang_credentials credentials_;
  std::vector<std::unique_ptr<data_plane>> planes_;
  std::vector<data_plane_address> addresses_;
};

}  // namespace troupe::transport::testing
