// Bytes of everything on the wire: Cap'n Proto messages, one segment, unpacked, with bounds that
// are checked before anything is read. Encoding cannot fail; decoding takes hostile bytes.
//
//   std::vector<std::uint8_t> bytes = schemas::encode(plan);
//   TROUPE_TRY(plan, schemas::decode_step_plan(bytes));
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "schemas/control_message.hpp"
#include "schemas/step_plan.hpp"
#include "schemas/supervisor_message.hpp"

namespace troupe::schemas {

// Counts up with every change that an older reader would misunderstand; compared at the join.
inline constexpr std::uint32_t protocol_version = 3;

struct wire_limits {
  static constexpr std::size_t step_plan_bytes_max = 64U << 20;
  static constexpr std::size_t step_result_bytes_max = 16U << 20;
  static constexpr std::size_t following_changes_bytes_max = 64U << 20;
  static constexpr std::size_t control_bytes_max = 1U << 20;
  static constexpr std::size_t supervisor_bytes_max = 64U << 10;  // one datagram of the socket pair
};

using wire_bytes = std::vector<std::uint8_t>;

[[nodiscard]] wire_bytes encode(const step_plan& plan);
[[nodiscard]] wire_bytes encode(const step_result& result);
[[nodiscard]] wire_bytes encode(const following_changes& changes);
[[nodiscard]] wire_bytes encode(const control_message& message);
[[nodiscard]] wire_bytes encode(const supervisor_message& message);

// Errors of all: invalid_argument (too long, truncated, not such a message, a value out of range:
// which field), unimplemented (a message kind of a newer version).
[[nodiscard]] base::result<step_plan> decode_step_plan(std::span<const std::uint8_t> bytes);
[[nodiscard]] base::result<step_result> decode_step_result(std::span<const std::uint8_t> bytes);
[[nodiscard]] base::result<following_changes> decode_following_changes(
    std::span<const std::uint8_t> bytes);
[[nodiscard]] base::result<control_message> decode_control_message(
    std::span<const std::uint8_t> bytes);
[[nodiscard]] base::result<supervisor_message> decode_supervisor_message(
    std::span<const std::uint8_t> bytes);

}  // namespace troupe::schemas
