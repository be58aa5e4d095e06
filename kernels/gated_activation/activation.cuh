// The activations of a gated feed-forward block, for the kernels that apply them.
#pragma once

#include "kernels/matmul/matmul.cuh"

namespace troupe::kernels::cuda {

// act(gate_value) * up_value, the operations in this order.
__device__ __forceinline__ float gated_value(gate kind, float gate_value, float up_value) {
  float activated = 0.0F;
  if (kind == gate::silu) {
    activated = __fdiv_rn(gate_value, __fadd_rn(1.0F, expf(-gate_value)));
  } else if (kind == gate::gelu_tanh) {
    // x / 2 (1 + tanh(u)) in the form that does not cancel when x is negative.
    constexpr float root_two_over_pi = 0.797884561F;
    const float cube = __fmul_rn(__fmul_rn(gate_value, gate_value), gate_value);
    const float u = __fmul_rn(root_two_over_pi, __fmaf_rn(0.044715F, cube, gate_value));
    activated = __fdiv_rn(gate_value, __fadd_rn(1.0F, expf(__fmul_rn(-2.0F, u))));
  } else {
    constexpr float root_half = 0.707106781F;
    const float tail = erfcf(-__fmul_rn(gate_value, root_half));
    activated = __fmul_rn(__fmul_rn(0.5F, gate_value), tail);
  }
  return __fmul_rn(activated, up_value);
}

}  // namespace troupe::kernels::cuda
