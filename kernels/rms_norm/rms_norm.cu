#include "kernels/rms_norm/rms_norm.cuh"

#include "kernels/add/add.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int head_warps = 4;

__device__ __forceinline__ float normed(float value, float factor, float weight) {
  return __fmul_rn(__fmul_rn(value, factor), weight);
}

template <class Element>
__global__ void __launch_bounds__(head_warps* warp_threads)
    warp_norm_kernel(const __grid_constant__ rms_norm_launch what) {
  wait_for_previous();
  release_next();
  const std::int64_t all = what.rows * what.heads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  for (std::int64_t at = std::int64_t{blockIdx.x} * head_warps + threadIdx.x / warp_threads;
       at < all; at += std::int64_t{gridDim.x} * head_warps) {
    const std::int64_t row = at / what.heads;
    const std::int64_t offset = at % what.heads * what.columns;
    const float* const from = what.input + row * what.input_stride + offset;
    auto* const to = static_cast<Element*>(what.output) + row * what.output_stride + offset;
    const float factor =
        norm_factor(warp_sum_of_squares(from, what.columns), what.columns, what.epsilon);
    for (int i = lane; i < what.columns; i += warp_threads) {
      to[i] = from_float<Element>(normed(from[i], factor, what.weight[i]));
    }
  }
}

// The sum over the block, for all its threads, in a fixed tree.
__device__ __forceinline__ float block_sum(float value, float* shared) {
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const int warps = static_cast<int>(blockDim.x) / warp_threads;
  value = warp_sum(value);
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  value = warp_sum(lane < warps ? shared[lane] : 0.0F);
  __syncthreads();
  return value;
}

template <class Element, int Width>
__device__ __forceinline__ void norm_row(const rms_norm_launch& what, std::int64_t row,
                                         std::int64_t offset, float sum, float* shared) {
  const float* const from = what.input + row * what.input_stride + offset;
  auto* const to = static_cast<Element*>(what.output) + row * what.output_stride + offset;
  const float factor = norm_factor(block_sum(sum, shared), what.columns, what.epsilon);
  for (int i = static_cast<int>(threadIdx.x) * Width; i < what.columns;
       i += static_cast<int>(blockDim.x) * Width) {
#pragma unroll
    for (int k = 0; k < Width; ++k) {
      to[i + k] = from_float<Element>(normed(from[i + k], factor, what.weight[i + k]));
    }
  }
}

template <class Element, int Width>
__global__ void block_norm_kernel(const __grid_constant__ rms_norm_launch what) {
  __shared__ float shared[warp_threads];
  wait_for_previous();
  release_next();
  for (std::int64_t at = blockIdx.x; at < what.rows * what.heads; at += gridDim.x) {
    const std::int64_t row = at / what.heads;
    const std::int64_t offset = at % what.heads * what.columns;
    const float* const from = what.input + row * what.input_stride + offset;
    float sum = 0.0F;
    for (int i = static_cast<int>(threadIdx.x) * Width; i < what.columns;
         i += static_cast<int>(blockDim.x) * Width) {
#pragma unroll
      for (int k = 0; k < Width; ++k) sum = __fmaf_rn(from[i + k], from[i + k], sum);
    }
    norm_row<Element, Width>(what, row, offset, sum, shared);
  }
}

template <class Element, int Width>
__global__ void add_norm_kernel(const __grid_constant__ add_rms_norm_launch what) {
  __shared__ float shared[warp_threads];
  wait_for_previous();
  release_next();
  const rms_norm_launch& norm = what.norm;
  for (std::int64_t row = blockIdx.x; row < norm.rows; row += gridDim.x) {
    float* const target = what.target + row * norm.input_stride;
    const float* const addend = what.addend + row * what.addend_stride;
    float sum = 0.0F;
    for (int i = static_cast<int>(threadIdx.x) * Width; i < norm.columns;
         i += static_cast<int>(blockDim.x) * Width) {
      float values[Width];
#pragma unroll
      for (int k = 0; k < Width; ++k) {
        values[k] = added(target[i + k], addend[i + k], what.bias, i + k);
      }
#pragma unroll
      for (int k = 0; k < Width; ++k) {
        target[i + k] = values[k];
        sum = __fmaf_rn(values[k], values[k], sum);
      }
    }
    norm_row<Element, Width>(norm, row, 0, sum, shared);
  }
}

bool by_four(const rms_norm_launch& what) {
  return what.columns % 4 == 0 && what.input_stride % 4 == 0 &&
         reinterpret_cast<std::uintptr_t>(what.input) % 16 == 0;
}

launch_shape block_shape(const rms_norm_launch& what) {
  return {.grid = grid_of(what.rows * what.heads), .block = dim3(what.columns > 8192 ? 1024 : 256)};
}

template <class Element>
cudaError_t norm_as(cudaStream_t stream, const rms_norm_launch& what) {
  if (what.columns <= warp_norm_columns_max) {
    const std::int64_t blocks = (what.rows * what.heads + head_warps - 1) / head_warps;
    return launch(stream, {.grid = grid_of(blocks), .block = dim3(head_warps * warp_threads)},
                  warp_norm_kernel<Element>, what);
  }
  const launch_shape shape = block_shape(what);
  if (by_four(what)) return launch(stream, shape, block_norm_kernel<Element, 4>, what);
  return launch(stream, shape, block_norm_kernel<Element, 1>, what);
}

template <class Element>
cudaError_t add_norm_as(cudaStream_t stream, const add_rms_norm_launch& what) {
  const launch_shape shape = block_shape(what.norm);
  if (by_four(what.norm)) return launch(stream, shape, add_norm_kernel<Element, 4>, what);
  return launch(stream, shape, add_norm_kernel<Element, 1>, what);
}

}  // namespace

cudaError_t rms_norm(cudaStream_t stream, const rms_norm_launch& what) {
  return what.output_is_bfloat16 ? norm_as<bfloat16>(stream, what) : norm_as<float>(stream, what);
}

cudaError_t add_rms_norm(cudaStream_t stream, const add_rms_norm_launch& what) {
  if (what.norm.columns <= warp_norm_columns_max) {  // small rows have another tree
    const cudaError_t code = add(stream, {.target = what.target,
                                          .target_stride = what.norm.input_stride,
                                          .addend = what.addend,
                                          .addend_stride = what.addend_stride,
                                          .bias = what.bias,
                                          .rows = what.norm.rows,
                                          .columns = what.norm.columns});
    return code == cudaSuccess ? rms_norm(stream, what.norm) : code;
  }
  return what.norm.output_is_bfloat16 ? add_norm_as<bfloat16>(stream, what)
                                      : add_norm_as<float>(stream, what);
}

}  // namespace troupe::kernels::cuda
