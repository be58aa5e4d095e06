// One element of a stored tensor, and a shape in words. Internal to models/.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "models/checkpoint.hpp"

namespace troupe::models {

// Exact. Range: float32, float16 or bfloat16.
[[nodiscard]] float widen(const std::byte* from, stored_dtype type) noexcept;

// E.g. "[20, 40]".
[[nodiscard]] std::string describe(std::span<const std::int64_t> shape);

}  // namespace troupe::models
