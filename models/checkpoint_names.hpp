// The nearest of many names, for errors that say what was probably meant.
#pragma once

#include <span>
#include <string_view>

#include "models/checkpoint.hpp"

namespace troupe::models {

// The tensor whose name needs the fewest inserted, deleted or changed bytes to become `name`; the
// first of equals. Empty when none is within a quarter of the name's length.
// Cost: about tensors x name length x 32 steps, and a length filter before that: an error path.
[[nodiscard]] std::string_view nearest_name(std::span<const tensor_info> tensors,
                                            std::string_view name);

}  // namespace troupe::models
