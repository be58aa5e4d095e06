#include "transport/message_collective.hpp"

#include "base/check.hpp"
#include "transport/tree_sum.hpp"

#include <numeric>
#include <utility>

namespace troupe::transport {
namespace {

int rounds_of(int size) noexcept {
  int rounds = 0;
  while ((1 << rounds) < size) ++rounds;
  return rounds;
}

std::span<float> room(std::vector<float>& buffer, std::size_t count) {
  if (buffer.size() < count) buffer.resize(count);
  return std::span(buffer).first(count);
}

// offsets[r] .. offsets[r + 1]: the bytes of rank r.
std::vector<std::size_t> offsets_of(std::span<const std::size_t> counts) {
  std::vector<std::size_t> offsets(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
  return offsets;
}

}  // namespace

message_collective::message_collective(std::unique_ptr<point_to_point> peers, base::epoch_id epoch,
                                       message_options options)
    : peers_(std::move(peers)),
      epoch_(epoch),
      options_(options),
      place_{.rank = peers_->rank(), .size = peers_->size()} {
  TROUPE_CHECK(place_.size >= 1 && place_.size <= group_size_max);
}

base::result<void> message_collective::enter(base::epoch_id epoch) const {
  TROUPE_TRY_VOID(check_epoch(epoch_, epoch));
  if (aborted_.load(std::memory_order_acquire)) return fail_aborted();
  return {};
}

base::result<void> message_collective::settle(base::result<void> outcome) {
  if (!outcome) abort();
  return outcome;
}

message_tag message_collective::tag(operation kind, int round) const noexcept {
  return {.kind = kind, .round = static_cast<std::uint8_t>(round), .number = number_};
}

void message_collective::abort() noexcept {
  aborted_.store(true, std::memory_order_release);
  peers_->abort();
}

base::result<void> message_collective::all_reduce_sum(base::epoch_id epoch,
                                                      std::span<float> values) {
  TROUPE_TRY_VOID(enter(epoch));
  TROUPE_TRY_VOID(check_sum_group(place_));  // the same refusal on every rank: nobody waits
  ++number_;
  const bool halves = values.size_bytes() >= options_.halving_bytes_min;
  return settle(
      sum(operation::all_reduce_sum, values, all_reduce_rounds(place_, values.size(), halves)));
}

base::result<void> message_collective::sum(operation kind, std::span<float> values,
                                           const std::vector<sum_round>& rounds) {
  for (const sum_round& round : rounds) {
    const std::span<float> given = values.subspan(round.given.first, round.given.count);
    const std::span<float> taken = values.subspan(round.taken.first, round.taken.count);
    const std::span<float> theirs = round.adds ? room(received_, taken.size()) : taken;
    TROUPE_TRY_VOID(peers_->exchange(
        tag(kind, round.number), {.to = round.partner, .bytes = std::as_bytes(given)},
        {.from = round.partner, .bytes = std::as_writable_bytes(theirs)}));
    if (round.adds) add_to(taken, theirs);
  }
  return {};
}

base::result<void> message_collective::reduce_scatter_sum(base::epoch_id epoch,
                                                          std::span<const float> values,
                                                          std::span<float> mine) {
  TROUPE_TRY_VOID(enter(epoch));
  TROUPE_TRY_VOID(check_sum_group(place_));
  ++number_;
  if (auto fits = check_reduce_scatter(place_, values, mine); !fits) return settle(fits);
  // Laying the parts out in the order of the pieces first makes the piece that a rank ends with its
  // own part.
  const std::span<float> work = room(work_, values.size());
  for (int part = 0; part < place_.size; ++part) {
    const std::size_t from = static_cast<std::size_t>(part) * mine.size();
    const int piece = piece_number({.rank = part, .size = place_.size});
    const std::size_t to = static_cast<std::size_t>(piece) * mine.size();
    copy_bytes(std::as_bytes(values.subspan(from, mine.size())),
               std::as_writable_bytes(work.subspan(to, mine.size())));
  }
  TROUPE_TRY_VOID(
      settle(sum(operation::reduce_scatter_sum, work, halving_rounds(place_, work.size()))));
  const float_range piece = piece_of(place_, work.size());
  copy_bytes(std::as_bytes(work.subspan(piece.first, piece.count)), std::as_writable_bytes(mine));
  return {};
}

base::result<void> message_collective::all_gather(base::epoch_id epoch,
                                                  std::span<const std::byte> mine,
                                                  std::span<std::byte> all) {
  TROUPE_TRY_VOID(enter(epoch));
  ++number_;
  if (auto fits = check_all_gather(place_, mine, all); !fits) return settle(fits);
  const std::vector<std::size_t> counts(static_cast<std::size_t>(place_.size), mine.size());
  const std::vector<std::size_t> offsets = offsets_of(counts);
  const auto self = static_cast<std::size_t>(place_.rank);
  copy_bytes(mine, all.subspan(offsets[self], mine.size()));
  return settle(gather_parts(operation::all_gather, offsets, all));
}

base::result<void> message_collective::all_gather_v(base::epoch_id epoch,
                                                    std::span<const std::byte> mine,
                                                    std::span<const std::size_t> counts,
                                                    std::span<std::byte> all) {
  TROUPE_TRY_VOID(enter(epoch));
  ++number_;
  if (auto fits = check_all_gather_v(place_, mine, counts, all); !fits) return settle(fits);
  const std::vector<std::size_t> offsets = offsets_of(counts);
  copy_bytes(mine, all.subspan(offsets[static_cast<std::size_t>(place_.rank)], mine.size()));
  return settle(gather_parts(operation::all_gather_v, offsets, all));
}

// Power of two: recursive doubling of aligned blocks of ranks, log2(p) rounds. Else a ring, p - 1
// rounds; both move (p - 1)/p of the bytes, and there is nothing to add, so the order is free.
base::result<void> message_collective::gather_parts(operation kind,
                                                    std::span<const std::size_t> offsets,
                                                    std::span<std::byte> all) {
  const auto blocks = [&](int first, int count) {
    const std::size_t begin = offsets[static_cast<std::size_t>(first)];
    return all.subspan(begin, offsets[static_cast<std::size_t>(first + count)] - begin);
  };
  if (is_power_of_two(place_.size)) {
    for (int s = 0; s < rounds_of(place_.size); ++s) {
      const int width = 1 << s;
      const int partner = place_.rank ^ width;
      const int mine = place_.rank & ~(width - 1);
      TROUPE_TRY_VOID(peers_->exchange(tag(kind, s), {.to = partner, .bytes = blocks(mine, width)},
                                       {.from = partner, .bytes = blocks(mine ^ width, width)}));
    }
    return {};
  }
  const int right = (place_.rank + 1) % place_.size;
  const int left = (place_.rank + place_.size - 1) % place_.size;
  for (int s = 0; s + 1 < place_.size; ++s) {
    const int given = (place_.rank + place_.size - s) % place_.size;
    const int taken = (left + place_.size - s) % place_.size;
    TROUPE_TRY_VOID(peers_->exchange(tag(kind, s), {.to = right, .bytes = blocks(given, 1)},
                                     {.from = left, .bytes = blocks(taken, 1)}));
  }
  return {};
}

base::result<void> message_collective::all_to_all_v(base::epoch_id epoch,
                                                    std::span<const std::byte> send,
                                                    std::span<const std::size_t> send_counts,
                                                    std::span<std::byte> receive,
                                                    std::span<const std::size_t> receive_counts) {
  TROUPE_TRY_VOID(enter(epoch));
  ++number_;
  auto fits = check_all_to_all_v(place_, send, send_counts, receive, receive_counts);
  if (!fits) return settle(fits);
  return settle(all_to_all_parts(send, send_counts, receive, receive_counts));
}

// Round s: to the rank s places on, from the one s places back, so that no rank is everybody's
// target at once.
base::result<void> message_collective::all_to_all_parts(
    std::span<const std::byte> send, std::span<const std::size_t> send_counts,
    std::span<std::byte> receive, std::span<const std::size_t> receive_counts) {
  const std::vector<std::size_t> from_offsets = offsets_of(send_counts);
  const std::vector<std::size_t> to_offsets = offsets_of(receive_counts);
  const auto part = [&](int to) {
    const auto p = static_cast<std::size_t>(to);
    return send.subspan(from_offsets[p], send_counts[p]);
  };
  const auto place = [&](int from) {
    const auto p = static_cast<std::size_t>(from);
    return receive.subspan(to_offsets[p], receive_counts[p]);
  };
  copy_bytes(part(place_.rank), place(place_.rank));
  for (int s = 1; s < place_.size; ++s) {
    const int to = (place_.rank + s) % place_.size;
    const int from = (place_.rank + place_.size - s) % place_.size;
    TROUPE_TRY_VOID(peers_->exchange(tag(operation::all_to_all_v, s), {.to = to, .bytes = part(to)},
                                     {.from = from, .bytes = place(from)}));
  }
  return {};
}

base::result<void> message_collective::broadcast(base::epoch_id epoch, int root,
                                                 std::span<std::byte> bytes) {
  TROUPE_TRY_VOID(enter(epoch));
  ++number_;
  if (auto fits = check_root(place_, root); !fits) return settle(fits);
  return settle(broadcast_from(root, bytes));
}

// A binomial tree rooted at `root`: ranks counted from it; the lowest set bit names the parent.
base::result<void> message_collective::broadcast_from(int root, std::span<std::byte> bytes) {
  const int relative = (place_.rank + place_.size - root) % place_.size;
  const auto absolute = [&](int of) { return (of + root) % place_.size; };
  int s = 0;
  while ((1 << s) < place_.size && (relative & (1 << s)) == 0) ++s;
  if (relative != 0) {
    const int parent = absolute(relative - (1 << s));
    TROUPE_TRY_VOID(
        peers_->receive(tag(operation::broadcast, s), {.from = parent, .bytes = bytes}));
  }
  while (--s >= 0) {
    if (relative + (1 << s) >= place_.size) continue;
    const int child = absolute(relative + (1 << s));
    TROUPE_TRY_VOID(peers_->send(tag(operation::broadcast, s), {.to = child, .bytes = bytes}));
  }
  return {};
}

base::result<void> message_collective::send(base::epoch_id epoch, int to,
                                            std::span<const std::byte> bytes) {
  TROUPE_TRY_VOID(enter(epoch));
  if (auto fits = check_peer(place_, to); !fits) return settle(fits);
  // Not numbered: the ranks that take no part in it could not count it.
  return settle(peers_->send({.kind = operation::send_receive}, {.to = to, .bytes = bytes}));
}

base::result<void> message_collective::receive(base::epoch_id epoch, int from,
                                               std::span<std::byte> bytes) {
  TROUPE_TRY_VOID(enter(epoch));
  if (auto fits = check_peer(place_, from); !fits) return settle(fits);
  return settle(peers_->receive({.kind = operation::send_receive}, {.from = from, .bytes = bytes}));
}

// Dissemination: after round s a rank has heard, through others, from the 2^(s+1) - 1 before it.
// Source: Hensgen, Finkel, Manber 1988, "Two algorithms for barrier synchronization".
base::result<void> message_collective::barrier(base::epoch_id epoch) {
  TROUPE_TRY_VOID(enter(epoch));
  ++number_;
  for (int s = 0; s < rounds_of(place_.size); ++s) {
    const int to = (place_.rank + (1 << s)) % place_.size;
    const int from = (place_.rank + place_.size - (1 << s)) % place_.size;
    auto done = peers_->exchange(tag(operation::barrier, s), {.to = to, .bytes = {}},
                                 {.from = from, .bytes = {}});
    if (!done) return settle(done);
  }
  return {};
}

}  // namespace troupe::transport
