#include "kernels/cuda/tensor_map.cuh"

#include <cudaTypedefs.h>

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

cudaError_t encode_map(const map_shape& of, CUtensorMap* made) {
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

}  // namespace troupe::kernels::cuda
