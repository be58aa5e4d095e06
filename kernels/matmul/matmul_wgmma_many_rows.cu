// Many rows of the batch: bound by the tensor cores. CTAs that stay, one a multiprocessor: a
// warpgroup whose one thread fetches K tiles of both operands, also the next tile's while the last
// is stored, and two warpgroups that multiply 64 outputs each. In a cluster of two, neighbours in
// the outputs share the rows of the batch: each fetches half of them for both. Float8 weights
// become bfloat16 in registers, by one warpgroup while the other multiplies.
#include "kernels/matmul/wgmma_float8.cuh"

// For other devices the kernels are empty, and what they are made of is not used.
#pragma nv_diag_suppress 177

namespace troupe::kernels::cuda {
namespace {

constexpr int tile_outputs = 128;
constexpr int threads = 3 * warpgroup_threads;
constexpr int shared_bytes_max = 227 * 1024;
constexpr int stages_max = 8;

// A stage: 128 bytes of the outputs, which are 64 inputs (float8: 128, one segment), and as many
// inputs of the batch. Runs: with the pending sums of the runs.
template <int Tokens, bool Float8, bool Runs, int Cluster>
struct many_rows_shape {
  static constexpr int tokens = Tokens;
  static constexpr int cluster = Cluster;
  static constexpr bool float8 = Float8;
  static constexpr int stage_inputs = Float8 ? matmul_float8_segment : matmul_k_tile;
  static constexpr int weights_bytes = tile_outputs * k_tile_row_bytes;
  static constexpr int tile_bytes = Tokens * k_tile_row_bytes;  // of 64 inputs
  static constexpr int stage_bytes = weights_bytes + tile_bytes * (stage_inputs / matmul_k_tile);
  static constexpr int stack_bytes = Runs ? tile_outputs * Tokens * 4 : 0;
  static constexpr int fixed_bytes = stack_bytes + swizzle_atom_bytes + barrier_area_bytes;
  static constexpr int fitting = (shared_bytes_max - fixed_bytes) / stage_bytes;
  static constexpr int stages = fitting < stages_max ? fitting : stages_max;
  static constexpr int shared_bytes = stages * stage_bytes + fixed_bytes;
  // A CTA's share of the batch's rows, in copies of at most 128 rows.
  static constexpr int share_rows = Tokens / Cluster;
  static constexpr int box_rows = share_rows < 128 ? share_rows : 128;
};

// Where a cluster's tiles lie. Groups of token tiles walk along all outputs: what runs at one time
// then shares few tiles of either operand, which the second-level cache keeps.
struct tile_order {
  int token_tiles = 0;
  int output_units = 0;  // of a cluster's tiles
  int group = 1;         // token tiles

  __device__ __forceinline__ int count() const { return token_tiles * output_units; }
  __device__ __forceinline__ void at(int index, int* output_unit, int* token_tile) const {
    const int first = index / (group * output_units) * group;
    const int width = min(group, token_tiles - first);
    const int within = index - first * output_units;
    *output_unit = within / width;
    *token_tile = first + within % width;
  }
};

template <class Shape, bool Gated>
__device__ __forceinline__ void fetch(const wgmma_maps& maps, const ring<Shape>& to,
                                      std::uint64_t policy, int output_tile, int column,
                                      int padded_column, int token) {
  barrier_arrive_expect(to.full(), Shape::stage_bytes);
  const copy_target weights{to.address(), to.full(), policy};
  if constexpr (Gated) {
    copy_4d(weights, maps.weights, padded_column, output_tile * (tile_outputs / 16));
  } else {
    copy_2d(weights, maps.weights, padded_column, output_tile * tile_outputs);
  }
  const int skipped = Shape::cluster > 1 ? cluster_rank() * Shape::share_rows : 0;
#pragma unroll
  for (int tile = 0; tile < Shape::stage_inputs / matmul_k_tile; ++tile) {
#pragma unroll
    for (int row = 0; row < Shape::share_rows; row += Shape::box_rows) {
      const std::uint32_t at = to.address() + Shape::weights_bytes + tile * Shape::tile_bytes +
                               (skipped + row) * k_tile_row_bytes;
      const copy_target input{at, to.full(), policy};
      const int from = column + tile * matmul_k_tile;
      if constexpr (Shape::cluster > 1) {
        copy_2d_to_both(input, maps.input, from, token + skipped + row);
      } else {
        copy_2d(input, maps.input, from, token + row);
      }
    }
  }
}

template <class Shape, bool Gated>
__device__ __forceinline__ void produce(const wgmma_maps& maps, const matmul_kernel_args& args,
                                        const tile_order& order, ring<Shape> to) {
  const std::uint64_t policy = policy_evict_normal();
  const int rank = Shape::cluster > 1 ? cluster_rank() : 0;
  const int clusters = static_cast<int>(gridDim.x) / Shape::cluster;
  for (int index = static_cast<int>(blockIdx.x) / Shape::cluster; index < order.count();
       index += clusters) {
    int unit = 0;
    int token_tile = 0;
    order.at(index, &unit, &token_tile);
    for (int run = 0; run < args.weights.runs; ++run) {
      const int steps = k_tiles_of(args.weights, run) * matmul_k_tile / Shape::stage_inputs;
      const auto column = static_cast<int>(args.weights.run_begin[run]);
      const auto padded = static_cast<int>(args.weights.padded_run_begin[run]);
      for (int step = 0; step < steps; ++step) {
        to.wait_empty();
        fetch<Shape, Gated>(maps, to, policy, unit * Shape::cluster + rank,
                            column + step * Shape::stage_inputs,
                            padded + step * Shape::stage_inputs, token_tile * Shape::tokens);
        to.advance();
      }
    }
  }
}

// A thread's cells of the output, as pending sums: nobody else touches them.
template <bool Load, int Count>
__device__ __forceinline__ void through_output(const matmul_kernel_args& args, int first_output,
                                               int first_token, float (&d)[Count]) {
  const int output = first_output + group_warp() * 16 + lane_id() / 4;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const int token = first_token + i / 4 * 8 + lane_id() % 4 * 2 + i % 2;
    const int at = output + i % 4 / 2 * 8;
    if (token >= args.rows || at >= args.weights.outputs) continue;
    float* const cell = args.output + token * args.output_stride + at;
    if constexpr (Load) {
      d[i] = __fadd_rn(*cell, d[i]);
    } else {
      *cell = d[i];
    }
  }
}

// d = what waits + d, or waits = d. Shape: waits [count / 4][threads that multiply], this thread's.
template <bool Load, int Count>
__device__ __forceinline__ void through_memory(float4* waits, float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i += 4, waits += 2 * warpgroup_threads) {
    if constexpr (Load) {
      d[i] = __fadd_rn(waits->x, d[i]);
      d[i + 1] = __fadd_rn(waits->y, d[i + 1]);
      d[i + 2] = __fadd_rn(waits->z, d[i + 2]);
      d[i + 3] = __fadd_rn(waits->w, d[i + 3]);
    } else {
      *waits = make_float4(d[i], d[i + 1], d[i + 2], d[i + 3]);
    }
  }
}

// Multiplies all runs (2, 4 or 8), as a binary counter: the sum of a run joins what waits while the
// low bits of its number are ones, older sums on the left. The tree's first level waits in
// registers, the second in shared memory, the third in the output itself.
template <class Shape>
__device__ __forceinline__ void multiply_runs(const matmul_kernel_args& args, int first_output,
                                              int first_token, float4* stack, ring<Shape>& from,
                                              float (&d)[Shape::tokens / 2]) {
  const int group = first_output / 64 % 2;
  const row_scales scales(args, first_output);
  const int pairs = args.weights.runs / 2;
  for (int pair = 0; pair < pairs; ++pair) {
    float left[Shape::tokens / 2];
    multiply_one_run(from, group, args.weights, 2 * pair, scales, left);
    multiply_one_run(from, group, args.weights, 2 * pair + 1, scales, d);
#pragma unroll
    for (int i = 0; i < Shape::tokens / 2; ++i) d[i] = __fadd_rn(left[i], d[i]);
    if ((pair & 1) == 1) through_memory<true>(stack, d);
    if ((pair & 3) == 3) through_output<true>(args, first_output, first_token, d);
    if (pair == pairs - 1) return;
    if ((pair & 1) == 0) {
      through_memory<false>(stack, d);
    } else {
      through_output<false>(args, first_output, first_token, d);
    }
  }
}

// The same where weights take the registers of the first level: it waits in shared memory, the
// second in the workspace.
template <class Shape>
__device__ __forceinline__ void multiply_float8_runs(const matmul_kernel_args& args,
                                                     int first_output, int first_token,
                                                     float4* stack, ring<Shape>& from,
                                                     float (&d)[Shape::tokens / 2]) {
  constexpr int quads = Shape::tokens / 8 * 2 * warpgroup_threads;  // of a tile
  float4* const second = args.stack + static_cast<int>(blockIdx.x) * quads +
                         (static_cast<int>(threadIdx.x) - warpgroup_threads);
  const int group = first_output / 64 % 2;
  const row_scales scales(args, first_output);
  for (int run = 0; run < args.weights.runs; ++run) {
    multiply_one_run(from, group, args.weights, run, scales, d);
    if ((run & 1) == 1) through_memory<true>(stack, d);
    if ((run & 3) == 3) through_memory<true>(second, d);
    if ((run & 7) == 7) through_output<true>(args, first_output, first_token, d);
    if (run == args.weights.runs - 1) return;
    if ((run & 1) == 0) {
      through_memory<false>(stack, d);
    } else if ((run & 3) == 1) {
      through_memory<false>(second, d);
    } else {
      through_output<false>(args, first_output, first_token, d);
    }
  }
}

template <class Shape, bool Gated, bool Runs>
__device__ __forceinline__ void consume(const matmul_kernel_args& args, const tile_order& order,
                                        int group, float4* stack, ring<Shape> from) {
  const int rank = Shape::cluster > 1 ? cluster_rank() : 0;
  const int clusters = static_cast<int>(gridDim.x) / Shape::cluster;
  for (int index = static_cast<int>(blockIdx.x) / Shape::cluster; index < order.count();
       index += clusters) {
    int unit = 0;
    int token_tile = 0;
    order.at(index, &unit, &token_tile);
    const int first = (unit * Shape::cluster + rank) * tile_outputs + group * 64;
    float d[Shape::tokens / 2];
    if constexpr (Runs && Shape::float8) {
      multiply_float8_runs<Shape>(args, first, token_tile * Shape::tokens, stack, from, d);
    } else if constexpr (Runs) {
      multiply_runs<Shape>(args, first, token_tile * Shape::tokens, stack, from, d);
    } else {
      multiply_one_run(from, group, args.weights, 0, row_scales(args, first), d);
    }
    store_tile<Gated>(args, d, first, token_tile * Shape::tokens);
  }
}

template <int Tokens, bool Float8, bool Gated, bool Runs, int Cluster>
__global__ void __launch_bounds__(threads, 1)
    many_rows_kernel(const __grid_constant__ wgmma_maps maps,
                     const __grid_constant__ matmul_kernel_args args,
                     const __grid_constant__ tile_order order) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using shape = many_rows_shape<Tokens, Float8, Runs, Cluster>;
  extern __shared__ unsigned char shared[];
  const std::uint32_t begin = shared_address(shared);
  const std::uint32_t memory =
      (begin + swizzle_atom_bytes - 1) / swizzle_atom_bytes * swizzle_atom_bytes;
  constexpr int ring_bytes = shape::stages * shape::stage_bytes;
  const ring<shape> stages{.memory = memory, .barriers = memory + ring_bytes + shape::stack_bytes};
  if (threadIdx.x == 0) init_ring<shape>(stages.barriers, 1, 8);
  if constexpr (Cluster > 1) {
    cluster_sync();  // the neighbour's barriers too
  } else {
    __syncthreads();
  }
  wait_for_previous();
  release_next();
  const int warpgroup = static_cast<int>(threadIdx.x) / warpgroup_threads;
  if (warpgroup == 0) {
    give_registers();
    if (threadIdx.x == 0) produce<shape, Gated>(maps, args, order, stages);
  } else {
    take_registers();
    auto* const stack = reinterpret_cast<float4*>(shared + (memory - begin) + ring_bytes) +
                        (threadIdx.x - warpgroup_threads);
    consume<shape, Gated, Runs>(args, order, warpgroup - 1, stack, stages);
  }
  // No CTA leaves while its neighbour still writes its memory or arrives at its barriers.
  if constexpr (Cluster > 1) cluster_sync();
#else
  __trap();  // has_wgmma() is asked first
#endif
}

template <int Tokens, bool Float8, bool Gated, bool Runs, int Cluster>
cudaError_t launch_kernel(cudaStream_t stream, const matmul_kernel_args& args) {
  using shape = many_rows_shape<Tokens, Float8, Runs, Cluster>;
  wgmma_maps maps;
  const wgmma_boxes boxes{.weight_rows = tile_outputs, .input_rows = shape::box_rows};
  cudaError_t code = make_wgmma_maps(args, boxes, &maps);
  if (code != cudaSuccess) return code;
  constexpr auto kernel = many_rows_kernel<Tokens, Float8, Gated, Runs, Cluster>;
  code = allow_shared_memory(kernel, shape::shared_bytes);
  if (code != cudaSuccess) return code;
  constexpr int unit_outputs = tile_outputs * Cluster;
  constexpr int group_rows = 2048;  // with as many outputs: what 128 tiles of 128 by 256 cover
  const tile_order order{
      .token_tiles = (args.rows + Tokens - 1) / Tokens,
      .output_units = static_cast<int>((args.weights.outputs + unit_outputs - 1) / unit_outputs),
      .group = group_rows / Tokens};
  const std::int64_t units = std::int64_t{order.token_tiles} * order.output_units;
  const auto clusters =
      static_cast<unsigned>(min(units, std::int64_t{max(1, multiprocessors() / Cluster)}));
  return launch(stream,
                {.grid = dim3(clusters * Cluster),
                 .block = dim3(threads),
                 .shared_bytes = shape::shared_bytes,
                 .cluster = dim3(Cluster)},
                kernel, maps, args, order);
}

template <bool Float8, int Cluster>
cudaError_t launch_kind(cudaStream_t stream, const matmul_kernel_args& args) {
  constexpr int tokens = 128;
  if (args.weights.runs > 1) {
    return launch_kernel<tokens, Float8, false, true, Cluster>(stream, args);
  }
  if (args.fused != gate::none) {
    return launch_kernel<tokens, Float8, true, false, Cluster>(stream, args);
  }
  return launch_kernel<tokens, Float8, false, false, Cluster>(stream, args);
}

template <int Cluster>
cudaError_t launch_cluster(cudaStream_t stream, const matmul_kernel_args& args) {
  return args.weights.type == weight_type::float8_e4m3 ? launch_kind<true, Cluster>(stream, args)
                                                       : launch_kind<false, Cluster>(stream, args);
}

}  // namespace

std::size_t wgmma_stack_bytes(const matmul_weights& weights) {
  if (weights.runs <= 2 || weights.type != weight_type::float8_e4m3) return 0;
  return static_cast<std::size_t>(multiprocessors()) * tile_outputs * 128 * sizeof(float);
}

cudaError_t wgmma_many_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  // A cluster's CTAs share the batch's rows: worth it where both have outputs of their own.
  if (args.weights.outputs <= tile_outputs) return launch_cluster<1>(stream, args);
  return launch_cluster<2>(stream, args);
}

}  // namespace troupe::kernels::cuda
