#include "kernels/matmul/matmul_wgmma.cuh"

#include "kernels/cuda/tensor_map.cuh"
#include "kernels/matmul/wgmma_tiles.cuh"

namespace troupe::kernels::cuda {

bool wgmma_can_fuse_gate(const matmul_weights& weights) {
  return weights.outputs % 16 == 0;  // eights of gates and of ups, as the tensor map cuts them
}

cudaError_t make_wgmma_maps(const matmul_kernel_args& args, const wgmma_boxes& boxes,
                            wgmma_maps* made) {
  const matmul_weights& weights = args.weights;
  const bool bytes = weights.type == weight_type::float8_e4m3;
  const auto elements = static_cast<cuuint64_t>(weights.padded_inputs);
  const cuuint64_t row = bytes ? elements : elements * 2;
  const cuuint32_t columns = bytes ? 128 : 64;
  const auto outputs = static_cast<cuuint64_t>(weights.outputs);
  const auto rows = static_cast<cuuint32_t>(boxes.weight_rows);
  map_shape of{.data = weights.data,
               .bytes = bytes,
               .sizes = {elements, outputs},
               .strides = {row},
               .box = {columns, rows}};
  if (args.fused != gate::none) {  // 8 gates, their 8 ups, the next 8 gates, ...
    of = {.data = weights.data,
          .bytes = bytes,
          .rank = 4,
          .sizes = {elements, 8, 2, outputs / 16},
          .strides = {row, outputs / 2 * row, 8 * row},
          .box = {columns, 8, 2, rows / 16}};
  }
  const cudaError_t code = encode_map(of, &made->weights);
  if (code != cudaSuccess) return code;
  return encode_map(
      {.data = args.input,
       .sizes = {static_cast<cuuint64_t>(weights.inputs), static_cast<cuuint64_t>(args.rows)},
       .strides = {static_cast<cuuint64_t>(args.input_stride) * 2},
       .box = {matmul_k_tile, static_cast<cuuint32_t>(boxes.input_rows)}},
      &made->input);
}

}  // namespace troupe::kernels::cuda
