#include "transport/shared_memory.hpp"

#include "transport/mesh_groups.hpp"
#include "transport/shared_memory_peers.hpp"
#include "transport/shared_memory_plane.hpp"
#include "transport/shared_memory_sum.hpp"

#include <fmt/format.h>

#include <utility>

namespace troupe::transport {
namespace {

class shared_memory final : public data_plane {
 public:
  shared_memory(data_plane_seat seat, std::shared_ptr<shared_segment> segment)
      : seat_(seat), peers_(std::make_shared<shared_peers>(std::move(segment), seat)) {}

  const data_plane_address& address() const noexcept override { return address_; }

  base::result<rank_groups> connect(std::span<const data_plane_address>,
                                    std::chrono::milliseconds patience) override {
    TROUPE_TRY_VOID(peers_->join(patience));
    group_members members = members_of(seat_.shape, seat_.rank);
    rank_groups groups = make_mesh_groups(peers_, seat_.shape, seat_.epoch);
    const auto with_sums = [&](std::unique_ptr<collective>& group, int number,
                               std::vector<int>& ranks) {
      group = std::make_unique<shared_collective>(
          std::move(group), peers_,
          shared_group_seat{.epoch = seat_.epoch, .group = number, .members = std::move(ranks)});
    };
    with_sums(groups.world, world_group, members.world);
    with_sums(groups.tp, tp_group, members.tp);
    with_sums(groups.pp, pp_group, members.pp);
    return groups;
  }

  void abort() noexcept override { peers_->abort(); }

  data_plane_counters counters() const noexcept override {
    const auto& moved = peers_->moved();
    return {.bytes_sent = moved.sent.load(std::memory_order_relaxed),
            .bytes_received = moved.received.load(std::memory_order_relaxed),
            .stale_messages = moved.stale.load(std::memory_order_relaxed)};
  }

 private:
  const data_plane_seat seat_;
  const data_plane_address address_;  // none: the segment is the place where the ranks meet
  const std::shared_ptr<shared_peers> peers_;
};

base::result<void> check_seat(const data_plane_seat& seat) {
  const auto [tp, pp] = seat.shape;
  const bool shaped = tp >= 1 && tp <= group_size_max && pp >= 1 && pp <= group_size_max / tp;
  if (shaped && seat.rank >= 0 && seat.rank < tp * pp) return {};
  return base::fail(base::error_code::invalid_argument, "transport",
                    fmt::format("no seat for rank {} in a gang of {} x {} ranks (tensor x "
                                "pipeline parallel); at most {} ranks share memory",
                                seat.rank, tp, pp, group_size_max));
}

}  // namespace

base::result<std::unique_ptr<data_plane>> make_shared_memory(
    data_plane_seat seat, std::shared_ptr<shared_segment> segment) {
  TROUPE_TRY_VOID(check_seat(seat));
  if (seat.shape.tp_size * seat.shape.pp_size != segment->ranks()) {
    return base::fail(base::error_code::invalid_argument, "transport",
                      fmt::format("shared memory segment for {} ranks, the gang has {} x {}",
                                  segment->ranks(), seat.shape.tp_size, seat.shape.pp_size));
  }
  return std::make_unique<shared_memory>(seat, std::move(segment));
}

base::result<std::unique_ptr<data_plane>> open_shared_memory(data_plane_seat seat,
                                                             base::fd segment) {
  TROUPE_TRY_VOID(check_seat(seat));
  const int ranks = seat.shape.tp_size * seat.shape.pp_size;
  TROUPE_TRY(mapped, shared_segment::map(std::move(segment), seat.epoch, ranks));
  return make_shared_memory(seat, std::move(mapped));
}

}  // namespace troupe::transport
