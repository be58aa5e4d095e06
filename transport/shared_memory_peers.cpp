#include "transport/shared_memory_peers.hpp"

#include "transport/mesh_groups.hpp"

#include <fmt/format.h>

#include <utility>

namespace troupe::transport {

namespace {

std::uint64_t bits_of(const std::vector<int>& ranks) {
  std::uint64_t bits = 0;
  for (const int rank : ranks) bits |= std::uint64_t{1} << rank;
  return bits;
}

}  // namespace

shared_peers::shared_peers(std::shared_ptr<shared_segment> segment, const data_plane_seat& seat)
    : segment_(std::move(segment)),
      epoch_(seat.epoch),
      rank_(seat.rank),
      bell_(*segment_, seat.rank) {
  const group_members members = members_of(seat.shape, seat.rank);
  members_[world_group] = bits_of(members.world);
  members_[tp_group] = bits_of(members.tp);
  members_[pp_group] = bits_of(members.pp);
  for (int peer = 0; peer < segment_->ranks(); ++peer) {
    senders_.emplace_back(place_of_ring(*segment_, rank_, peer, peer));
    receivers_.emplace_back(place_of_ring(*segment_, peer, rank_, peer));
  }
}

base::result<void> shared_peers::check_peer(int peer) const {
  if (bell_.aborted()) return fail_aborted();
  return transport::check_peer({.rank = rank_, .size = size()}, peer);
}

base::result<void> shared_peers::send(message_tag tag, outgoing message) {
  TROUPE_TRY_VOID(check_peer(message.to));
  ring_sender& out = senders_[static_cast<std::size_t>(message.to)];
  out.start(epoch_, tag, message.bytes);
  TROUPE_TRY_VOID(move(&out, nullptr, message.to, rank_));
  traffic_.sent.fetch_add(message.bytes.size(), std::memory_order_relaxed);
  return {};
}

base::result<void> shared_peers::receive(message_tag tag, incoming message) {
  TROUPE_TRY_VOID(check_peer(message.from));
  ring_receiver& in = receivers_[static_cast<std::size_t>(message.from)];
  in.start(epoch_, tag, message.bytes);
  TROUPE_TRY_VOID(move(nullptr, &in, rank_, message.from));
  traffic_.received.fetch_add(message.bytes.size(), std::memory_order_relaxed);
  return {};
}

base::result<void> shared_peers::exchange(message_tag tag, outgoing out, incoming in) {
  TROUPE_TRY_VOID(check_peer(out.to));
  TROUPE_TRY_VOID(check_peer(in.from));
  ring_sender& sender = senders_[static_cast<std::size_t>(out.to)];
  ring_receiver& receiver = receivers_[static_cast<std::size_t>(in.from)];
  sender.start(epoch_, tag, out.bytes);
  receiver.start(epoch_, tag, in.bytes);
  TROUPE_TRY_VOID(move(&sender, &receiver, out.to, in.from));
  traffic_.sent.fetch_add(out.bytes.size(), std::memory_order_relaxed);
  traffic_.received.fetch_add(in.bytes.size(), std::memory_order_relaxed);
  return {};
}

// A piece out, a piece in, in turn; waits only when neither goes on, and then for either.
base::result<void> shared_peers::move(ring_sender* out, ring_receiver* in, int to, int from) {
  const std::uint64_t stale = in == nullptr ? 0 : in->stale();
  for (;;) {
    bool moved = false;
    const bool sends = out != nullptr && !out->done();
    const bool receives = in != nullptr && !in->done();
    if (!sends && !receives) break;
    if (sends) {
      TROUPE_TRY(wrote, out->advance(bell_));
      moved = wrote;
    }
    if (receives) {
      TROUPE_TRY(read, in->advance(bell_));
      moved = moved || read;
    }
    if (moved) {
      if (bell_.aborted()) return fail_aborted();
      continue;
    }
    const std::uint64_t peers =
        (sends ? std::uint64_t{1} << to : 0) | (receives ? std::uint64_t{1} << from : 0);
    TROUPE_TRY_VOID(bell_.wait(
        peers, [&] { return (sends && out->changed()) || (receives && in->changed()); },
        [&] { return receives ? check_no_board(from, *in) : base::result<void>(); }));
  }
  if (in != nullptr && in->stale() != stale) {
    traffic_.stale.fetch_add(in->stale() - stale, std::memory_order_relaxed);
  }
  return {};
}

// A peer that has laid out a board which this rank has not is in a sum and sends nothing before
// this rank joins it, so waiting for its message would never end. What it sent before the board is
// seen: the ring is looked at after the count.
base::result<void> shared_peers::check_no_board(int peer, const ring_receiver& in) const {
  for (int group = 0; group < shared_groups; ++group) {
    if ((members_[static_cast<std::size_t>(group)] >> peer & 1) == 0) continue;
    const std::uint64_t theirs =
        segment_->count(peer, group).posted.load(std::memory_order_seq_cst);
    if (theirs <= posted_[static_cast<std::size_t>(group)] || in.changed()) continue;
    return base::fail(base::error_code::invalid_argument, "transport",
                      fmt::format("ranks out of step: rank {} is in a sum, rank {} waits for its "
                                  "message",
                                  peer, rank_));
  }
  return {};
}

base::result<void> shared_peers::check_no_message(int peer, int group, std::uint64_t awaited) {
  if (receivers_[static_cast<std::size_t>(peer)].empty()) return {};
  // It may have laid out the board and gone on; then the count, read after the ring, says so.
  const std::uint64_t theirs = segment_->count(peer, group).posted.load(std::memory_order_seq_cst);
  if (theirs >= awaited) return {};
  return base::fail(base::error_code::invalid_argument, "transport",
                    fmt::format("ranks out of step: rank {} sent a message, rank {} waits for it "
                                "in a sum",
                                peer, rank_));
}

}  // namespace troupe::transport
