// What every collective checks before it moves a byte: epoch, sizes, ranks. One place, so that all
// implementations, that of engine/ for devices too, refuse the same calls in the same words.
#pragma once

#include "base/error.hpp"
#include "base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace troupe::transport {

// A group larger than this is a mistake: tensor-parallel groups end at 8, a gang of 8 x 8 at 64.
inline constexpr int group_size_max = 64;

enum class operation : std::uint8_t {
  none,
  all_reduce_sum,
  reduce_scatter_sum,
  all_gather,
  all_gather_v,
  all_to_all_v,
  broadcast,
  send_receive,
  barrier,
};

// The name of the function in the interface, e.g. "all_reduce_sum".
[[nodiscard]] std::string_view to_string(operation kind) noexcept;

// One rank's seat in its group.
struct group_place {
  int rank = 0;
  int size = 1;
};

[[nodiscard]] constexpr bool is_power_of_two(int value) noexcept {
  return value > 0 && (value & (value - 1)) == 0;
}

// Errors: aborted, when the caller works for another epoch than the group was made for.
[[nodiscard]] base::result<void> check_epoch(base::epoch_id group, base::epoch_id caller);

// The error of every call after abort(), and of every wait that abort() ended.
[[nodiscard]] tl::unexpected<base::error> fail_aborted();

// Each of these: Errors: invalid_argument.
[[nodiscard]] base::result<void> check_sum_group(group_place place);
[[nodiscard]] base::result<void> check_reduce_scatter(group_place place,
                                                      std::span<const float> values,
                                                      std::span<const float> mine);
[[nodiscard]] base::result<void> check_all_gather(group_place place,
                                                  std::span<const std::byte> mine,
                                                  std::span<const std::byte> all);
[[nodiscard]] base::result<void> check_all_gather_v(group_place place,
                                                    std::span<const std::byte> mine,
                                                    std::span<const std::size_t> counts,
                                                    std::span<const std::byte> all);
[[nodiscard]] base::result<void> check_all_to_all_v(group_place place,
                                                    std::span<const std::byte> send,
                                                    std::span<const std::size_t> send_counts,
                                                    std::span<const std::byte> receive,
                                                    std::span<const std::size_t> receive_counts);
[[nodiscard]] base::result<void> check_root(group_place place, int root);
[[nodiscard]] base::result<void> check_peer(group_place place, int peer);

// Copies `from` to `to`, which may be the same bytes. Shape: equal sizes.
void copy_bytes(std::span<const std::byte> from, std::span<std::byte> to) noexcept;

}  // namespace troupe::transport
