// One rank's messages to and from the others through the rings of a shared segment, and what its
// sums need to know about the rings. Internal to the shared-memory data plane.
#pragma once

#include "transport/data_plane.hpp"
#include "transport/point_to_point.hpp"
#include "transport/shared_memory_bell.hpp"
#include "transport/shared_memory_ring.hpp"
#include "transport/shared_memory_segment.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace troupe::transport {

class shared_peers final : public point_to_point {
 public:
  shared_peers(std::shared_ptr<shared_segment> segment, const data_plane_seat& seat);
  ~shared_peers() override { bell_.leave(); }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return segment_->ranks(); }
  base::result<void> send(message_tag tag, outgoing message) override;
  base::result<void> receive(message_tag tag, incoming message) override;
  base::result<void> exchange(message_tag tag, outgoing out, incoming in) override;
  void abort() noexcept override { bell_.abort(); }

  // Takes the rank's seat and waits for the others. Errors: see shared_bell::join.
  base::result<void> join(std::chrono::milliseconds patience) { return bell_.join(patience); }

  [[nodiscard]] const shared_segment& segment() const noexcept { return *segment_; }
  [[nodiscard]] shared_bell& bell() noexcept { return bell_; }

  // The boards this rank has laid out in a group.
  [[nodiscard]] std::uint64_t& posted(int group) noexcept {
    return posted_[static_cast<std::size_t>(group)];
  }
  // Errors: invalid_argument when rank `peer`, which has not laid out board number `awaited` of
  // the group, has sent a message instead: it is in another operation and neither would go on.
  [[nodiscard]] base::result<void> check_no_message(int peer, int group, std::uint64_t awaited);

  // Any thread.
  struct traffic {
    std::atomic<std::uint64_t> sent{0};
    std::atomic<std::uint64_t> received{0};
    std::atomic<std::uint64_t> stale{0};
  };
  [[nodiscard]] traffic& moved() noexcept { return traffic_; }

 private:
  [[nodiscard]] base::result<void> check_peer(int peer) const;
  base::result<void> start(message_tag tag, incoming in);
  base::result<void> move(ring_sender* out, ring_receiver* in, int to, int from);
  [[nodiscard]] base::result<void> check_no_board(int peer, const ring_receiver& in) const;

  const std::shared_ptr<shared_segment> segment_;
  const base::epoch_id epoch_;
  const int rank_;
  shared_bell bell_;
  std::vector<ring_sender> senders_;  // by peer; the own one is unused
  std::vector<ring_receiver> receivers_;
  std::array<std::uint64_t, shared_groups> posted_{};
  std::array<std::uint64_t, shared_groups> members_{};  // a bit for each rank of the group
  traffic traffic_;
};

}  // namespace troupe::transport
