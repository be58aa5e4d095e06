// Which instruction paths a rank offers its gang, which takes one that all offer.
#pragma once

#include <span>
#include <vector>

#include "kernels/numerics.hpp"

namespace troupe::cli {

// Best first. `chosen`: what this rank would compute with by itself; `asked_for`: --numerics named
// it, so nothing else is offered. Nor is on a GPU: the weights are nowhere else.
[[nodiscard]] std::vector<kernels::instruction_path> offered_paths(
    kernels::instruction_path chosen, bool asked_for,
    std::span<const kernels::instruction_path> supported);

}  // namespace troupe::cli
