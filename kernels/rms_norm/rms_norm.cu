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

// What a thread has of a row: its values stay in registers between the sum and the norm, as far as
// they fit, and weights, which are constants, come before what the kernel before writes.
template <int Width>
struct thread_columns {
  static constexpr int kept = 4;  // groups of Width
  float values[kept][Width];
  float weights[kept][Width];

  __device__ __forceinline__ static int column(int group) {
    return (static_cast<int>(threadIdx.x) + group * static_cast<int>(blockDim.x)) * Width;
  }
  __device__ __forceinline__ static void load(const float* from, float (&into)[Width]) {
    if constexpr (Width == 4) {
      const float4 four = *reinterpret_cast<const float4*>(from);
      into[0] = four.x;
      into[1] = four.y;
      into[2] = four.z;
      into[3] = four.w;
    } else {
      into[0] = *from;
    }
  }
  __device__ __forceinline__ void load_weights(const rms_norm_launch& what) {
#pragma unroll
    for (int group = 0; group < kept; ++group) {
      if (column(group) >= what.columns) break;
#pragma unroll
      for (int k = 0; k < Width; ++k) weights[group][k] = what.weight[column(group) + k];
    }
  }
};

template <class Element, int Width>
__device__ __forceinline__ void store_normed(const rms_norm_launch& what, Element* to, float factor,
                                             const float (&values)[Width],
                                             const float (&weights)[Width]) {
#pragma unroll
  for (int k = 0; k < Width; ++k) {
    to[k] = from_float<Element>(normed(values[k], factor, weights[k]));
  }
}

// A block's norm of one row: get(column, values) reads a group of it, put(column, values) leaves it
// in memory, apart so that all reads are on their way at once.
template <class Element, int Width, class Get, class Put>
__device__ __forceinline__ void norm_row(const rms_norm_launch& what, const float* from,
                                         Element* to, thread_columns<Width>& mine, float* shared,
                                         const Get& get, const Put& put) {
  using columns = thread_columns<Width>;
  float sum = 0.0F;
  const auto square = [&](const float(&values)[Width]) {
#pragma unroll
    for (int k = 0; k < Width; ++k) sum = __fmaf_rn(values[k], values[k], sum);
  };
#pragma unroll
  for (int group = 0; group < columns::kept; ++group) {
    if (columns::column(group) < what.columns) get(columns::column(group), mine.values[group]);
  }
#pragma unroll
  for (int group = 0; group < columns::kept; ++group) {
    if (columns::column(group) >= what.columns) continue;
    put(columns::column(group), mine.values[group]);
    square(mine.values[group]);
  }
  for (int group = columns::kept; columns::column(group) < what.columns; ++group) {
    float values[Width];
    get(columns::column(group), values);
    put(columns::column(group), values);
    square(values);
  }
  const float factor = norm_factor(block_sum(sum, shared), what.columns, what.epsilon);
#pragma unroll
  for (int group = 0; group < columns::kept; ++group) {
    const int at = columns::column(group);
    if (at < what.columns) {
      store_normed(what, to + at, factor, mine.values[group], mine.weights[group]);
    }
  }
  for (int group = columns::kept; columns::column(group) < what.columns; ++group) {
    const int at = columns::column(group);
    float values[Width];
    float weights[Width];
    columns::load(from + at, values);
#pragma unroll
    for (int k = 0; k < Width; ++k) weights[k] = what.weight[at + k];
    store_normed(what, to + at, factor, values, weights);
  }
}

template <class Element, int Width>
__global__ void block_norm_kernel(const __grid_constant__ rms_norm_launch what) {
  __shared__ float shared[warp_threads];
  thread_columns<Width> mine;
  mine.load_weights(what);
  wait_for_previous();
  release_next();
  for (std::int64_t at = blockIdx.x; at < what.rows * what.heads; at += gridDim.x) {
    const std::int64_t row = at / what.heads;
    const std::int64_t offset = at % what.heads * what.columns;
    const float* const from = what.input + row * what.input_stride + offset;
    auto* const to = static_cast<Element*>(what.output) + row * what.output_stride + offset;
    norm_row(
        what, from, to, mine, shared,
        [&](int column, float(&values)[Width]) {
          thread_columns<Width>::load(from + column, values);
        },
        [](int, const float(&)[Width]) {});
  }
}

// Which may start anywhere: the order of the sum depends on the target's alignment alone.
template <int Width>
__device__ __forceinline__ void load_addends(const float* from, float (&into)[Width]) {
  if (reinterpret_cast<std::uintptr_t>(from) % (Width * sizeof(float)) == 0) {
    thread_columns<Width>::load(from, into);
    return;
  }
#pragma unroll
  for (int k = 0; k < Width; ++k) into[k] = from[k];
}

template <class Element, int Width>
__global__ void add_norm_kernel(const __grid_constant__ add_rms_norm_launch what) {
  __shared__ float shared[warp_threads];
  const rms_norm_launch& norm = what.norm;
  thread_columns<Width> mine;
  mine.load_weights(norm);
  wait_for_previous();
  release_next();
  for (std::int64_t row = blockIdx.x; row < norm.rows; row += gridDim.x) {
    float* const target = what.target + row * norm.input_stride;
    const float* const addend = what.addend + row * what.addend_stride;
    auto* const to = static_cast<Element*>(norm.output) + row * norm.output_stride;
    norm_row(
        norm, target, to, mine, shared,
        [&](int column, float(&values)[Width]) {
          float addends[Width];
          thread_columns<Width>::load(target + column, values);
          load_addends(addend + column, addends);
#pragma unroll
          for (int k = 0; k < Width; ++k) {
            values[k] = added(values[k], addends[k], what.bias, column + k);
          }
        },
        [&](int column, const float(&values)[Width]) {
#pragma unroll
          for (int k = 0; k < Width; ++k) target[column + k] = values[k];
        });
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
