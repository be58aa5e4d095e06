#include "kernels/matmul/matmul_wgmma.cuh"

#include <cudaTypedefs.h>

#include "kernels/matmul/wgmma_tiles.cuh"

namespace troupe::kernels::cuda {
namespace {

PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address,
                                                            12000, cudaEnableDefault, &found);
  if (code != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(address);
}

// The driver's function, so that nothing links against the driver; null: it is too old.
PFN_cuTensorMapEncodeTiled_v12000 encode_tiled() {
  static const PFN_cuTensorMapEncodeTiled_v12000 found = find_encode();
  return found;
}

struct map_shape {
  const void* data = nullptr;
  bool bytes = false;  // elements are bytes, not swizzled; else bfloat16, by 128 bytes
  cuuint32_t rank = 2;
  cuuint64_t sizes[4] = {};
  cuuint64_t strides[3] = {};  // bytes
  cuuint32_t box[4] = {};
};

cudaError_t encode(const map_shape& of, CUtensorMap* made) {
  const cuuint32_t element_strides[4] = {1, 1, 1, 1};
  const auto function = encode_tiled();
  if (function == nullptr) return cudaErrorNotSupported;
  const CUresult result =
      function(made, of.bytes ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
               of.rank, const_cast<void*>(of.data), of.sizes, of.strides, of.box, element_strides,
               CU_TENSOR_MAP_INTERLEAVE_NONE,
               of.bytes ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// Compiled for every target of the build; tells whether this device runs code made for sm_90a.
__global__ void built_for_wgmma(bool* is) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  *is = true;
#else
  *is = false;
#endif
}

bool built_with_wgmma() {
  bool* is = nullptr;
  bool answer = false;
  if (cudaMalloc(&is, sizeof(bool)) != cudaSuccess) return false;
  built_for_wgmma<<<1, 1>>>(is);
  const cudaError_t code = cudaMemcpy(&answer, is, sizeof(bool), cudaMemcpyDeviceToHost);
  cudaFree(is);
  return code == cudaSuccess && answer;
}

}  // namespace

bool has_wgmma() {
  static const bool has = encode_tiled() != nullptr && built_with_wgmma();
  return has;
}

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
  const cudaError_t code = encode(of, &made->weights);
  if (code != cudaSuccess) return code;
  return encode(
      {.data = args.input,
       .sizes = {static_cast<cuuint64_t>(weights.inputs), static_cast<cuuint64_t>(args.rows)},
       .strides = {static_cast<cuuint64_t>(args.input_stride) * 2},
       .box = {matmul_k_tile, static_cast<cuuint32_t>(boxes.input_rows)}},
      &made->input);
}

}  // namespace troupe::kernels::cuda
