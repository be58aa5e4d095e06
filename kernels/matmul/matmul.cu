#include "kernels/matmul/matmul.cuh"

#include "kernels/matmul/matmul_mma.cuh"
#include "kernels/matmul/matmul_simt.cuh"
#include "kernels/matmul/matmul_wgmma.cuh"

namespace troupe::kernels::cuda {
namespace {

// Whether every 16 bytes that a lane takes are aligned and within one row. Must not depend on the
// number of rows: the two arithmetics differ.
bool for_tensor_cores(const matmul_launch& what) {
  const matmul_weights& weights = *what.weights;
  constexpr std::int64_t elements = 8;
  if (weights.type == weight_type::float32 || weights.inputs % elements != 0) return false;
  if (what.input_stride % elements != 0 || reinterpret_cast<std::uintptr_t>(what.input) % 16 != 0) {
    return false;
  }
  for (int run = 0; run < weights.runs; ++run) {
    if (weights.run_begin[run] % elements != 0) return false;
  }
  return true;
}

// All but simt have the same bits, so this may look at the rows and the device.
matmul_kernel choice_for(const matmul_launch& what) {
  if (!for_tensor_cores(what)) return matmul_kernel::simt;
  const matmul_weights& weights = *what.weights;
  const bool fits = what.fused == gate::none || wgmma_can_fuse_gate(weights);
  if (!has_wgmma() || !fits) {
    return matmul_takes_few_rows(weights, what.rows) ? matmul_kernel::few_rows
                                                     : matmul_kernel::tiled;
  }
  return what.rows <= wgmma_few_rows_max && weights.outputs <= wgmma_outputs_max
             ? matmul_kernel::wgmma_few_rows
             : matmul_kernel::wgmma_many_rows;
}

// Whether the kernel wants float8 weights as bfloat16.
bool widens(const matmul_launch& what, matmul_kernel choice) {
  return what.weights->type == weight_type::float8_e4m3 && choice == matmul_kernel::tiled;
}

// Float8 weights are widened and multiplied so many outputs at a time.
std::int64_t widened_outputs(const matmul_weights& weights) {
  constexpr std::int64_t bytes_max = std::int64_t{128} << 20;
  constexpr std::int64_t multiple = 256;  // whole tiles of a cluster
  const std::int64_t most = bytes_max / (weights.padded_inputs * 2) / multiple * multiple;
  return min(weights.outputs, max(most, multiple));
}

constexpr std::size_t aligned(std::size_t bytes) {
  constexpr std::size_t to = 1024;
  return (bytes + to - 1) / to * to;
}

// What lies in the workspace behind the counters, whose place is the same for every product: they
// are zero between products.
struct workspace_parts {
  std::size_t widened = 0;
  std::size_t scratch = 0;

  workspace_parts(const matmul_launch& what, matmul_kernel choice) {
    const matmul_weights& weights = *what.weights;
    if (choice == matmul_kernel::simt || choice == matmul_kernel::few_rows) return;
    if (widens(what, choice)) {
      const std::int64_t elements = widened_outputs(weights) * weights.padded_inputs;
      widened = aligned(static_cast<std::size_t>(elements) * sizeof(bfloat16));
    }
    if (choice == matmul_kernel::tiled) scratch = matmul_tiled_stack_bytes();
    if (choice == matmul_kernel::wgmma_many_rows) scratch = wgmma_stack_bytes(weights);
    if (choice == matmul_kernel::wgmma_few_rows) {
      scratch = wgmma_partial_bytes(weights, what.rows);
    }
  }
  std::size_t bytes() const { return wgmma_counter_bytes + widened + scratch; }
};

matmul_kernel_args args_of(const matmul_launch& what, std::byte* counters, std::byte* scratch) {
  return {.input = static_cast<const bfloat16*>(what.input),
          .input_stride = what.input_stride,
          .rows = static_cast<int>(what.rows),
          .weights = *what.weights,
          .bias = what.bias,
          .output = what.output,
          .output_stride = what.output_stride,
          .fused = what.fused,
          .gated = what.gated,
          .gated_is_bfloat16 = what.gated_is_bfloat16,
          .gated_stride = what.gated_stride,
          .stack = reinterpret_cast<float4*>(scratch),
          .done = reinterpret_cast<unsigned*>(counters),
          .partials = reinterpret_cast<float4*>(scratch)};
}

cudaError_t run(cudaStream_t stream, matmul_kernel choice, const matmul_kernel_args& args) {
  switch (choice) {
    case matmul_kernel::few_rows:
      return matmul_few_rows(stream, args);
    case matmul_kernel::tiled:
      return matmul_tiled(stream, args);
    case matmul_kernel::wgmma_few_rows:
      return wgmma_few_rows(stream, args);
    case matmul_kernel::wgmma_many_rows:
      return wgmma_many_rows(stream, args);
    case matmul_kernel::simt:
      break;
  }
  return cudaErrorNotSupported;
}

// Widens and multiplies some outputs at a time.
cudaError_t run_widened(cudaStream_t stream, matmul_kernel choice, const matmul_kernel_args& whole,
                        bfloat16* widened) {
  const std::int64_t each = widened_outputs(whole.weights);
  for (std::int64_t first = 0; first < whole.weights.outputs; first += each) {
    matmul_kernel_args part = whole;
    part.weights.outputs = min(each, whole.weights.outputs - first);
    part.weights.data = widened;
    part.weights.type = weight_type::bfloat16;
    part.constant_weights = false;
    part.weights.scales =
        whole.weights.scales +
        first / matmul_scale_outputs * (whole.weights.padded_inputs / matmul_float8_segment);
    part.output = whole.output + first;
    if (whole.bias != nullptr) part.bias = whole.bias + first;
    cudaError_t code = widen_float8(stream, whole.weights, first, part.weights.outputs, widened);
    if (code == cudaSuccess) code = run(stream, choice, part);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

std::size_t matmul_workspace_bytes(const matmul_launch& what) {
  return matmul_workspace_bytes(what, choice_for(what));
}
std::size_t matmul_workspace_bytes(const matmul_launch& what, matmul_kernel choice) {
  return workspace_parts(what, choice).bytes();
}

bool matmul_can_fuse_gate(const matmul_launch& what) {
  const matmul_weights& weights = *what.weights;
  if (what.bias != nullptr || weights.runs != 1 || weights.outputs % 2 != 0) return false;
  matmul_launch fused = what;
  fused.fused = gate::silu;
  const matmul_kernel choice = choice_for(fused);
  // Widened weights come some outputs at a time.
  return choice != matmul_kernel::simt && !widens(fused, choice);
}

cudaError_t matmul(cudaStream_t stream, const matmul_launch& what) {
  return matmul_by(stream, what, choice_for(what));
}

cudaError_t matmul_by(cudaStream_t stream, const matmul_launch& what, matmul_kernel choice) {
  if (what.rows == 0 || what.weights->outputs == 0) return cudaSuccess;
  if (choice == matmul_kernel::simt) return matmul_simt(stream, what);
  const workspace_parts parts(what, choice);
  auto* const counters = static_cast<std::byte*>(what.workspace.data);
  std::byte* const behind = counters + wgmma_counter_bytes;
  const matmul_kernel_args args = args_of(what, counters, behind + parts.widened);
  if (parts.widened == 0) return run(stream, choice, args);
  return run_widened(stream, choice, args, reinterpret_cast<bfloat16*>(behind));
}

}  // namespace troupe::kernels::cuda
