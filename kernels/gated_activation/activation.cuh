// The activations of a gated feed-forward block, for the kernels that apply them.
#pragma once

#include <type_traits>

#include "kernels/matmul/matmul.cuh"

namespace troupe::kernels::cuda {

// To 1 unit in the last place; of more than 2^126, zero.
__device__ __forceinline__ float reciprocal(float value) {
  float result = 0.0F;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}

// act(gate_value) * up_value, the operations in this order. Kind is not `none`.
template <gate Kind>
__device__ __forceinline__ float gated_value(float gate_value, float up_value) {
  float activated = 0.0F;
  if constexpr (Kind == gate::silu) {
    activated = __fmul_rn(gate_value, reciprocal(__fadd_rn(1.0F, expf(-gate_value))));
  } else if constexpr (Kind == gate::gelu_tanh) {
    // x / 2 (1 + tanh(u)) in the form that does not cancel when x is negative.
    constexpr float root_two_over_pi = 0.797884561F;
    const float cube = __fmul_rn(__fmul_rn(gate_value, gate_value), gate_value);
    const float u = __fmul_rn(root_two_over_pi, __fmaf_rn(0.044715F, cube, gate_value));
    activated = __fmul_rn(gate_value, reciprocal(__fadd_rn(1.0F, expf(__fmul_rn(-2.0F, u)))));
  } else {
    constexpr float root_half = 0.707106781F;
    const float tail = erfcf(-__fmul_rn(gate_value, root_half));
    activated = __fmul_rn(__fmul_rn(0.5F, gate_value), tail);
  }
  return __fmul_rn(activated, up_value);
}

// body(std::integral_constant<gate, ...>) for the kind. Around a loop, so that it is not asked for
// every value: the code of one kind is small, and its values overlap.
template <class Body>
__device__ __forceinline__ auto with_gate(gate kind, const Body& body) {
  switch (kind) {
    case gate::silu:
      return body(std::integral_constant<gate, gate::silu>{});
    case gate::gelu_tanh:
      return body(std::integral_constant<gate, gate::gelu_tanh>{});
    default:
      return body(std::integral_constant<gate, gate::gelu>{});
  }
}

__device__ __forceinline__ float gated_value(gate kind, float gate_value, float up_value) {
  return with_gate(kind, [&]<gate Kind>(std::integral_constant<gate, Kind>) {
    return gated_value<Kind>(gate_value, up_value);
  });
}

}  // namespace troupe::kernels::cuda
