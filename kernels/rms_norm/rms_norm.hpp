// Root-mean-square norm of rows, or of each head of a row.
#pragma once

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// output = x * (1 / sqrt(mean(x^2) + epsilon)) * weight, in float32, rounded once more when the
// output is bfloat16. The mean is over the last dimension, always whole: 4 vectors of partial sums,
// element i in lane i modulo their size, added as a tree.
// Shape: args.input float32 [rows][columns] or [rows][heads][head_dim], rows strided; args.output
// float32 or bfloat16 of the same shape, and may be the input itself when float32; weight
// [columns] or [head_dim].
// Cost: one read of the input (the second pass finds a row in the cache), one write of the output.
// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019); order of the products
// as in transformers' LlamaRMSNorm.
void rms_norm(instruction_path path, thread_pool& pool, const rms_norm_args& args);

// Plain loops in double.
void rms_norm_reference(const rms_norm_args& args);

}  // namespace troupe::kernels
