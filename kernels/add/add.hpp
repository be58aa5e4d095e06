// target += addend (+ bias): the residual stream, and biases of row-parallel products.
#pragma once

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Shape: args.target and args.addend float32 [rows][columns], rows strided; bias [columns] or
// empty. The bias is added to the addend first, then the sum to the target: two float32 roundings,
// the same on every path. `addend` may be `target` itself. Cost: one read of the addend, one read
// and write of the target.
void add(instruction_path path, thread_pool& pool, const add_args& args);

// Plain loops; the same additions.
void add_reference(const add_args& args);

}  // namespace troupe::kernels
