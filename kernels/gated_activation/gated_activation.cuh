// output = act(gate) * up, element by element.
#pragma once

#include "kernels/gated_activation/activation.cuh"

namespace troupe::kernels::cuda {

struct gated_activation_launch {
  const float* gates = nullptr;
  std::int64_t gates_stride = 0;
  const float* ups = nullptr;
  std::int64_t ups_stride = 0;
  gate kind = gate::silu;
  void* output = nullptr;
  bool output_is_bfloat16 = true;
  std::int64_t output_stride = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};
[[nodiscard]] cudaError_t gated_activation(cudaStream_t stream,
                                           const gated_activation_launch& what);

}  // namespace troupe::kernels::cuda
