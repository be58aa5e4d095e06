// Many rows of the batch: 128 outputs by 128 rows a CTA, K tiles of 64 through shared memory, eight
// warps of 64 outputs by 32 rows. The same chains, segments and tree as matmul_few_rows.cu: what
// differs is only who holds what.
#include <cuda_pipeline_primitives.h>

#include "kernels/matmul/matmul_mma.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int tile_outputs_count = 128;
constexpr int tile_tokens = 128;
constexpr int warps = 8;  // 2 along outputs, 4 along tokens
constexpr int threads = warps * warp_threads;
constexpr int stages = 4;
constexpr int warp_outputs = 64;
constexpr int warp_tokens = 32;
constexpr int row_tiles = warp_outputs / 16;
constexpr int token_tiles = warp_tokens / 8;
constexpr int units = matmul_k_tile / 8;  // of 16 bytes, a row of a tile has
constexpr int operand_bytes = 128 * matmul_k_tile * 2;
constexpr int stage_bytes = 2 * operand_bytes;
constexpr int stack_levels = 3;  // pending sums of 8 runs
constexpr int accumulators = row_tiles * token_tiles * 4;

// Neighbouring rows take their 32 bytes of a step from different banks, so that the sixteen lanes
// of one access (four rows by 32 bytes) meet no conflict.
__device__ __forceinline__ int unit_at(int row, int unit) {
  return row * units + (unit ^ ((row & 3) << 1));
}

struct tile_place {
  std::int64_t first_output = 0;  // in tile rows: with a gate twice the gated output
  int first_token = 0;
};

// What a thread copies of every K tile: the same 16 bytes of four rows of each operand.
struct copy_rows {
  static constexpr int count = 128 * units / threads;
  const bfloat16* weights[count];  // at the row's first input
  const bfloat16* input[count];
  bool weights_inside[count];
  bool input_inside[count];

  __device__ __forceinline__ copy_rows(const matmul_kernel_args& args, const tile_place& place) {
    const tile_rows rows_of{args.weights.outputs, args.fused != gate::none};
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int row = static_cast<int>(threadIdx.x) / units + i * (threads / units);
      const std::int64_t source = rows_of.weight_row(place.first_output, row);
      weights_inside[i] = source < args.weights.outputs;
      weights[i] = static_cast<const bfloat16*>(args.weights.data) +
                   (weights_inside[i] ? source * args.weights.padded_inputs : 0);
      const int token = place.first_token + row;
      input_inside[i] = token < args.rows;
      input[i] = args.input + (input_inside[i] ? token * args.input_stride : 0);
    }
  }

  // Copies one K tile of both operands; what lies outside is filled with zeros.
  __device__ __forceinline__ void copy(const matmul_kernel_args& args, int run, int k_tile,
                                       uint4* weights_to, uint4* input_to) const {
    const int unit = static_cast<int>(threadIdx.x) % units;
    const int offset = k_tile * matmul_k_tile + unit * 8;
    const auto padded = static_cast<int>(args.weights.padded_run_begin[run]) + offset;
    const auto column = static_cast<int>(args.weights.run_begin[run]) + offset;
    const bool column_inside = column < args.weights.inputs;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int row = static_cast<int>(threadIdx.x) / units + i * (threads / units);
      __pipeline_memcpy_async(weights_to + unit_at(row, unit), weights[i] + padded, 16,
                              weights_inside[i] ? 0 : 16);
      const bool inside = input_inside[i] && column_inside;
      __pipeline_memcpy_async(input_to + unit_at(row, unit),
                              inside ? input[i] + column : args.input, 16, inside ? 0 : 16);
    }
  }
};

// This lane's 4 inputs of a row's step, the same as in matmul_few_rows.cu: before sm_90 the bits
// depend on which eight of the sixteen come first.
template <bool Float8>
__device__ __forceinline__ uint2 step_piece(const uint4* tile, int row, int step) {
  const int lane = static_cast<int>(threadIdx.x) % 4;
  if constexpr (Float8) {
    const auto* const first = reinterpret_cast<const std::uint32_t*>(tile + unit_at(row, step * 2));
    const auto* const second =
        reinterpret_cast<const std::uint32_t*>(tile + unit_at(row, step * 2 + 1));
    return make_uint2(first[lane], second[lane]);
  } else {
    const uint4* const unit = tile + unit_at(row, step * 2 + lane % 2);
    return reinterpret_cast<const uint2*>(unit)[lane / 2];
  }
}

// One K tile from shared memory: four steps of 16 inputs.
template <bool Float8>
__device__ __forceinline__ void multiply_stage(const uint4* weights, const uint4* input,
                                               float (&d)[row_tiles][token_tiles][4]) {
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const int output = warp % 2 * warp_outputs + lane / 4;
  const int token = warp / 2 * warp_tokens + lane / 4;
#pragma unroll
  for (int step = 0; step < matmul_k_tile / 16; ++step) {
    uint2 low[row_tiles];
    uint2 high[row_tiles];
#pragma unroll
    for (int i = 0; i < row_tiles; ++i) {
      low[i] = step_piece<Float8>(weights, output + i * 16, step);
      high[i] = step_piece<Float8>(weights, output + i * 16 + 8, step);
    }
#pragma unroll
    for (int j = 0; j < token_tiles; ++j) {
      const uint2 row = step_piece<Float8>(input, token + j * 8, step);
#pragma unroll
      for (int i = 0; i < row_tiles; ++i) {
        mma_step(d[i][j], low[i].x, high[i].x, low[i].y, high[i].y, row.x, row.y);
      }
    }
  }
}

using tile_sums = float[row_tiles][token_tiles][4];

__device__ __forceinline__ void clear(tile_sums& d) {
#pragma unroll
  for (int i = 0; i < accumulators; ++i) (&d[0][0][0])[i] = 0.0F;
}

// total += scale * segment, which becomes zero. The segment ends before this column of the weights.
__device__ __forceinline__ void end_segment(const matmul_kernel_args& args, const tile_place& place,
                                            int padded_end, tile_sums& total, tile_sums& segment) {
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
#pragma unroll
  for (int i = 0; i < row_tiles; ++i) {
    const std::int64_t output = place.first_output + warp % 2 * warp_outputs + i * 16;
    const float scale = segment_scales(args.weights, output).at(padded_end - 1);
#pragma unroll
    for (int j = 0; j < token_tiles; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        total[i][j][k] = __fmaf_rn(scale, segment[i][j][k], total[i][j][k]);
      }
    }
  }
  clear(segment);
}

// The place of this thread's pending sums: only it reads and writes them.
__device__ __forceinline__ float4* pending(const matmul_kernel_args& args, int level) {
  return args.stack +
         (static_cast<std::size_t>(blockIdx.x) * stack_levels + level) * (accumulators / 4) *
             threads +
         threadIdx.x;
}

// Joins the sum of `run` with what waits, as a binary counter: older sums stand left.
__device__ __forceinline__ void end_run(const matmul_kernel_args& args, int run, tile_sums& total) {
  int level = 0;
  for (; (run >> level & 1) != 0; ++level) {
    const float4* const waits = pending(args, level);
#pragma unroll
    for (int i = 0; i < accumulators / 4; ++i) {
      const float4 left = waits[i * threads];
      float* const sum = &total[0][0][0] + i * 4;
      sum[0] = __fadd_rn(left.x, sum[0]);
      sum[1] = __fadd_rn(left.y, sum[1]);
      sum[2] = __fadd_rn(left.z, sum[2]);
      sum[3] = __fadd_rn(left.w, sum[3]);
    }
  }
  if (run == args.weights.runs - 1) return;
  float4* const to = pending(args, level);
#pragma unroll
  for (int i = 0; i < accumulators / 4; ++i) {
    const float* const sum = &total[0][0][0] + i * 4;
    to[i * threads] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  }
  clear(total);
}

__device__ __forceinline__ void store_tile(const matmul_kernel_args& args, const tile_place& place,
                                           const tile_sums& total) {
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const bool gated = args.fused != gate::none;
#pragma unroll
  for (int i = 0; i < row_tiles; ++i) {
    const int row = warp % 2 * warp_outputs + i * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < token_tiles; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int token = place.first_token + warp / 2 * warp_tokens + j * 8 + lane % 4 * 2 + half;
        if (token >= args.rows) continue;
        const float upper = total[i][j][half];
        const float lower = total[i][j][half + 2];
        if (gated) {
          const std::int64_t output = place.first_output / 2 + row / 16 * 8 + lane / 4;
          if (output < args.weights.outputs / 2) store_gated(args, token, output, upper, lower);
          continue;
        }
        const std::int64_t output = place.first_output + row;
        float* const to = args.output + token * args.output_stride;
        const float* const bias = args.bias;
        if (output < args.weights.outputs) {
          to[output] = bias == nullptr ? upper : __fadd_rn(upper, bias[output]);
        }
        if (output + 8 < args.weights.outputs) {
          to[output + 8] = bias == nullptr ? lower : __fadd_rn(lower, bias[output + 8]);
        }
      }
    }
  }
}

__device__ __forceinline__ int k_tiles_of(const matmul_weights& weights, int run) {
  return static_cast<int>(weights.padded_run_begin[run + 1] - weights.padded_run_begin[run]) /
         matmul_k_tile;
}

// Walks the K tiles of all runs, one after the other.
struct k_cursor {
  int run = 0;
  int tile = 0;  // within the run

  // To the first tile at or behind this place; false: there is none.
  __device__ __forceinline__ bool settle(const matmul_weights& weights) {
    while (run < weights.runs && tile >= k_tiles_of(weights, run)) {
      ++run;
      tile = 0;
    }
    return run < weights.runs;
  }
};

template <bool Float8>
__device__ __forceinline__ void multiply_tile(const matmul_kernel_args& args,
                                              const tile_place& place, uint4* shared,
                                              tile_sums& total) {
  constexpr int operand_units = operand_bytes / 16;
  tile_sums segment;
  clear(total);
  clear(segment);
  k_cursor ahead;
  const copy_rows source(args, place);
  const auto fill = [&](int stage) {
    if (ahead.settle(args.weights)) {
      uint4* const to = shared + stage * 2 * operand_units;
      source.copy(args, ahead.run, ahead.tile++, to, to + operand_units);
    }
    __pipeline_commit();
  };
  for (int stage = 0; stage < stages - 1; ++stage) fill(stage);
  const int segment_tiles = segment_inputs(args.weights) / matmul_k_tile;
  int stage = 0;
  for (int run = 0; run < args.weights.runs; ++run) {
    const int tiles = k_tiles_of(args.weights, run);
    const auto begin = static_cast<int>(args.weights.padded_run_begin[run]);
    for (int tile = 0; tile < tiles; ++tile) {
      __pipeline_wait_prior(stages - 2);
      __syncthreads();  // the stage is there for all, and all are done with the one to be filled
      fill((stage + stages - 1) % stages);
      const uint4* const from = shared + stage * 2 * operand_units;
      multiply_stage<Float8>(from, from + operand_units, segment);
      stage = (stage + 1) % stages;
      if (tile % segment_tiles == segment_tiles - 1 || tile == tiles - 1) {
        end_segment(args, place, begin + (tile + 1) * matmul_k_tile, total, segment);
      }
    }
    end_run(args, run, total);
  }
  __pipeline_wait_prior(0);
  __syncthreads();  // before the next tile fills what others may still read
}

template <bool Float8>
__global__ void __launch_bounds__(threads, 1)
    tiled_kernel(const __grid_constant__ matmul_kernel_args args) {
  extern __shared__ uint4 shared[];
  wait_for_previous();
  release_next();
  const auto token_count = static_cast<int>((args.rows + tile_tokens - 1) / tile_tokens);
  const auto output_count =
      static_cast<int>((args.weights.outputs + tile_outputs_count - 1) / tile_outputs_count);
  // Groups of eight token tiles walk along all outputs: a wave of CTAs then shares few tiles of
  // either operand, which the second-level cache keeps.
  constexpr int group = 8;
  for (int tile = static_cast<int>(blockIdx.x); tile < token_count * output_count;
       tile += static_cast<int>(gridDim.x)) {
    const int group_first = tile / (group * output_count) * group;
    const int group_tokens = min(group, token_count - group_first);
    const int within = tile % (group * output_count);
    const tile_place place{std::int64_t{within / group_tokens} * tile_outputs_count,
                           (group_first + within % group_tokens) * tile_tokens};
    tile_sums total;
    multiply_tile<Float8>(args, place, shared, total);
    store_tile(args, place, total);
  }
}

}  // namespace

std::size_t matmul_tiled_stack_bytes() {
  return static_cast<std::size_t>(multiprocessors()) * stack_levels * accumulators * threads *
         sizeof(float);
}

cudaError_t matmul_tiled(cudaStream_t stream, const matmul_kernel_args& args) {
  constexpr std::size_t shared = std::size_t{stages} * stage_bytes;
  const auto kernel = args.weights.scales == nullptr ? tiled_kernel<false> : tiled_kernel<true>;
  const cudaError_t allowed = allow_shared_memory(kernel, shared);
  if (allowed != cudaSuccess) return allowed;
  const std::int64_t tiles = (args.rows + tile_tokens - 1) / tile_tokens *
                             ((args.weights.outputs + tile_outputs_count - 1) / tile_outputs_count);
  const auto grid = static_cast<unsigned>(min(tiles, std::int64_t{multiprocessors()}));
  return launch(stream, {.grid = dim3(grid), .block = dim3(threads), .shared_bytes = shared},
                kernel, args);
}

}  // namespace troupe::kernels::cuda
