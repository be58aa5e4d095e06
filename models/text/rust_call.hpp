// Small helpers of the wrappers in this folder: bytes to and from the crate, bounded file reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "models/model_folder.hpp"
#include "models/text/troupe_text.h"

namespace troupe::text::detail {

// Never null: an empty text is present.
[[nodiscard]] troupe_text_view view(std::string_view text);
[[nodiscard]] troupe_text_view view(const std::optional<std::string_view>& text);

// Takes the buffer's text and frees it.
[[nodiscard]] std::string take(troupe_text_buffer buffer);

// The error of a call that returned `code`, which is not 0.
[[nodiscard]] tl::unexpected<base::error> failure(std::int32_t code, troupe_text_buffer message);

// The whole file, or nothing where it does not exist.
// Errors: resource_exhausted above `bytes_max`, unavailable where it cannot be read.
[[nodiscard]] base::result<std::optional<std::string>> read_file(const models::model_folder& folder,
                                                                 std::string_view name,
                                                                 std::size_t bytes_max);

// Of one file that is read whole; the crate checks it again.
inline constexpr std::size_t json_bytes_max = std::size_t{64} << 20;
// Public templates have at most 20 kB.
inline constexpr std::size_t template_bytes_max = std::size_t{1} << 20;

}  // namespace troupe::text::detail
