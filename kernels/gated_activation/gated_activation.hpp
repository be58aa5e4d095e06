// The gate of the MLP: act(gate) * up.
#pragma once

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// With e = the vector exponential (below 1.1 ulp):
//   silu       x / (1 + e(-x))
//   gelu_tanh  x / (1 + e(-2 k (x + 0.044715 x^3))), k = sqrt(2 / pi): equal to
//              x / 2 (1 + tanh(...)) without its cancellation
//   gelu       x Phi(x) by erfc, with full relative precision in both tails
// then the product with up, in float32, rounded once more when the output is bfloat16. An element's
// bits do not depend on its column: a rank's slice of the MLP gives what the whole gives.
// Shape: args.gate and args.up float32 [rows][columns], rows strided (halves of one fused product);
// args.output float32 or bfloat16 of the same shape, apart from the inputs or exactly one of them.
// Range: below -88 silu and gelu give -0 (their limits are above -1e-36).
// Cost: a read of both inputs and one exponential an element.
// Source: Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016); transformers' ACT2FN silu,
// gelu_pytorch_tanh, gelu.
void gated_activation(instruction_path path, thread_pool& pool, const gated_activation_args& args);

// Plain loops in double.
void gated_activation_reference(const gated_activation_args& args);

}  // namespace troupe::kernels
