// The one door to chance: everything else is a function of a seed.
#pragma once

#include <cstdint>

#include "base/error.hpp"

namespace troupe::base {

// 64 random bits from the system, for the seed of a request that has none.
// Errors: unavailable (the system gives none).
[[nodiscard]] result<std::uint64_t> draw_seed();

}  // namespace troupe::base
