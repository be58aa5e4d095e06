#include "transport/arguments.hpp"

#include "base/check.hpp"

#include <fmt/format.h>

#include <array>
#include <cstring>

namespace troupe::transport {
namespace {

tl::unexpected<base::error> refuse(std::string message) {
  return base::fail(base::error_code::invalid_argument, "transport", std::move(message));
}

// Whether the counts add up to `total` without overflow.
bool adds_up(std::span<const std::size_t> counts, std::size_t total) {
  std::size_t left = total;
  for (const std::size_t count : counts) {
    if (count > left) return false;
    left -= count;
  }
  return left == 0;
}

base::result<void> check_counts(operation kind, std::string_view name, group_place place,
                                std::span<const std::size_t> counts,
                                std::span<const std::byte> bytes) {
  if (counts.size() != static_cast<std::size_t>(place.size)) {
    return refuse(fmt::format("{}: {} has {} entries for a group of {} ranks", to_string(kind),
                              name, counts.size(), place.size));
  }
  if (!adds_up(counts, bytes.size())) {
    return refuse(fmt::format("{}: {} do not add up to the {} bytes of their buffer on rank {}",
                              to_string(kind), name, bytes.size(), place.rank));
  }
  return {};
}

}  // namespace

std::string_view to_string(operation kind) noexcept {
  static constexpr std::array<std::string_view, 9> names = {
      "none",         "all_reduce_sum", "reduce_scatter_sum", "all_gather", "all_gather_v",
      "all_to_all_v", "broadcast",      "send/receive",       "barrier"};
  const auto index = static_cast<std::size_t>(kind);
  return index < names.size() ? names[index] : "unknown operation";
}

base::result<void> check_epoch(base::epoch_id group, base::epoch_id caller) {
  if (group == caller) return {};
  return base::fail(
      base::error_code::aborted, "transport",
      fmt::format("a call for epoch {:x}/{} on a group of epoch {:x}/{}: its work "
                  "is out of date and was dropped",
                  caller.incarnation, caller.number, group.incarnation, group.number));
}

tl::unexpected<base::error> fail_aborted() {
  return base::fail(base::error_code::aborted, "transport",
                    "the group was aborted; a new epoch needs a new group");
}

base::result<void> check_sum_group(group_place place) {
  if (is_power_of_two(place.size)) return {};
  return refuse(fmt::format("a sum over {} ranks has no fixed tree; use a group of 1, 2, 4 or 8",
                            place.size));
}

base::result<void> check_reduce_scatter(group_place place, std::span<const float> values,
                                        std::span<const float> mine) {
  // Division, not product: a product could wrap to a match.
  const auto ranks = static_cast<std::size_t>(place.size);
  if (values.size() % ranks == 0 && values.size() / ranks == mine.size()) return {};
  return refuse(fmt::format("reduce_scatter_sum: {} values over {} ranks do not give parts of {}",
                            values.size(), place.size, mine.size()));
}

base::result<void> check_all_gather(group_place place, std::span<const std::byte> mine,
                                    std::span<const std::byte> all) {
  const auto ranks = static_cast<std::size_t>(place.size);
  if (all.size() % ranks == 0 && all.size() / ranks == mine.size()) return {};
  return refuse(fmt::format("all_gather: {} ranks with {} bytes each do not fill {} bytes",
                            place.size, mine.size(), all.size()));
}

base::result<void> check_all_gather_v(group_place place, std::span<const std::byte> mine,
                                      std::span<const std::size_t> counts,
                                      std::span<const std::byte> all) {
  TROUPE_TRY_VOID(check_counts(operation::all_gather_v, "counts", place, counts, all));
  const std::size_t expected = counts[static_cast<std::size_t>(place.rank)];
  if (expected == mine.size()) return {};
  return refuse(fmt::format("all_gather_v: rank {} passes {} bytes, its count says {}", place.rank,
                            mine.size(), expected));
}

base::result<void> check_all_to_all_v(group_place place, std::span<const std::byte> send,
                                      std::span<const std::size_t> send_counts,
                                      std::span<const std::byte> receive,
                                      std::span<const std::size_t> receive_counts) {
  constexpr auto kind = operation::all_to_all_v;
  TROUPE_TRY_VOID(check_counts(kind, "send_counts", place, send_counts, send));
  TROUPE_TRY_VOID(check_counts(kind, "receive_counts", place, receive_counts, receive));
  const auto self = static_cast<std::size_t>(place.rank);
  if (send_counts[self] == receive_counts[self]) return {};
  return refuse(fmt::format("all_to_all_v: rank {} sends itself {} bytes and expects {}",
                            place.rank, send_counts[self], receive_counts[self]));
}

base::result<void> check_root(group_place place, int root) {
  if (root >= 0 && root < place.size) return {};
  return refuse(fmt::format("broadcast: root {} is not in 0 .. {}", root, place.size - 1));
}

base::result<void> check_peer(group_place place, int peer) {
  if (peer >= 0 && peer < place.size && peer != place.rank) return {};
  return refuse(fmt::format("send/receive: rank {} has no peer {} in a group of {} ranks",
                            place.rank, peer, place.size));
}

void copy_bytes(std::span<const std::byte> from, std::span<std::byte> to) noexcept {
  TROUPE_CHECK(from.size() == to.size());
  if (from.empty() || from.data() == to.data()) return;
  std::memmove(to.data(), from.data(), from.size());
}

}  // namespace troupe::transport
