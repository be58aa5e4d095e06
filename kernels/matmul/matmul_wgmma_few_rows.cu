// Few rows of the batch: bound by reading the weights. A CTA takes 64 outputs of one run at a time:
// one warp fetches K tiles, as many in flight as shared memory holds, the next product's while the
// last is stored; one warpgroup multiplies. Who finishes the last run of 64 outputs adds the runs.
#include "kernels/matmul/wgmma_pipeline.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = warpgroup_threads + warp_threads;
// With so many CTAs on a multiprocessor of 228 KiB, each with 1 KiB of the system's.
constexpr int shared_bytes_max(int residents) { return 228 * 1024 / residents - 1024; }

// A stage: 128 bytes of 64 outputs, which are 64 inputs (float8: 128, one segment).
template <int Tokens, bool Float8, int Residents>
struct few_rows_shape {
  static constexpr int tokens = Tokens;
  static constexpr int cluster = 1;
  static constexpr bool float8 = Float8;
  static constexpr int stage_inputs = Float8 ? matmul_float8_segment : matmul_k_tile;
  static constexpr int weights_bytes = weights_group_bytes;
  static constexpr int tile_bytes = Tokens * k_tile_row_bytes;  // of 64 inputs
  static constexpr int input_bytes = tile_bytes * (stage_inputs / matmul_k_tile);
  static constexpr int stage_bytes = weights_bytes + input_bytes;
  static constexpr int stages =
      (shared_bytes_max(Residents) - swizzle_atom_bytes - barrier_area_bytes) / stage_bytes;
  static constexpr int shared_bytes =
      stages * stage_bytes + swizzle_atom_bytes + barrier_area_bytes;
};

// The stages of all that this CTA takes, one after the other.
template <class Shape>
struct stage_walk {
  int item = 0;
  int run = 0;
  int step = 0;
  int steps = 0;

  __device__ __forceinline__ explicit stage_walk(const matmul_kernel_args& args, int items)
      : item(static_cast<int>(blockIdx.x)) {
    settle(args, items);
  }
  __device__ __forceinline__ void settle(const matmul_kernel_args& args, int items) {
    for (; item < items; item += static_cast<int>(gridDim.x)) {
      run = item % args.weights.runs;
      steps = k_tiles_of(args.weights, run) * matmul_k_tile / Shape::stage_inputs;
      if (steps > 0) return;
    }
  }
  __device__ __forceinline__ void next(const matmul_kernel_args& args, int items) {
    if (++step < steps) return;
    step = 0;
    item += static_cast<int>(gridDim.x);
    settle(args, items);
  }
};

template <class Shape, bool Gated>
struct fetcher {
  const wgmma_maps& maps;
  const matmul_kernel_args& args;
  std::uint64_t once;  // the weights: first to leave the second-level cache
  std::uint64_t kept;

  // A stage is full after both of these.
  __device__ __forceinline__ void weights(const ring<Shape>& to,
                                          const stage_walk<Shape>& at) const {
    barrier_arrive_expect(to.full(), Shape::weights_bytes);
    const copy_target target{to.address(), to.full(), once};
    const int column =
        static_cast<int>(args.weights.padded_run_begin[at.run]) + at.step * Shape::stage_inputs;
    const int tile = at.item / args.weights.runs;
    if constexpr (Gated) {
      copy_4d(target, maps.weights, column, tile * 4);
    } else {
      copy_2d(target, maps.weights, column, tile * 64);
    }
  }
  __device__ __forceinline__ void input(const ring<Shape>& to, const stage_walk<Shape>& at) const {
    // A stage's other rows keep what they held: they belong to rows of the batch there are not.
    barrier_arrive_expect(to.full(),
                          Shape::input_bytes / Shape::tokens * min(args.rows, Shape::tokens));
    const int column =
        static_cast<int>(args.weights.run_begin[at.run]) + at.step * Shape::stage_inputs;
#pragma unroll
    for (int i = 0; i < Shape::stage_inputs / matmul_k_tile; ++i) {
      copy_2d({to.address() + Shape::weights_bytes + i * Shape::tile_bytes, to.full(), kept},
              maps.input, column + i * matmul_k_tile, 0);
    }
  }
};

template <class Shape, bool Gated>
__device__ __forceinline__ void produce(const wgmma_maps& maps, const matmul_kernel_args& args,
                                        int items, ring<Shape> to) {
  const fetcher<Shape, Gated> fetch{maps, args, policy_evict_first(), policy_evict_normal()};
  stage_walk<Shape> at(args, items);
  // Weights are constants (but widened ones), the batch is not: fill the ring with weights while
  // the kernel before this one ends.
  if (!args.constant_weights) wait_for_previous();
  stage_walk<Shape> input_at = at;
  ring<Shape> input_to = to;
  int filled = 0;
  for (; filled < Shape::stages && at.item < items; ++filled) {
    fetch.weights(to, at);
    to.advance();
    at.next(args, items);
  }
  wait_for_previous();
  for (; filled > 0; --filled) {
    fetch.input(input_to, input_at);
    input_to.advance();
    input_at.next(args, items);
  }
  while (at.item < items) {
    to.wait_empty();
    fetch.weights(to, at);
    fetch.input(to, at);
    to.advance();
    at.next(args, items);
  }
}

// Leaves this run's sums in memory. In the CTA that is last of the tile's runs: d becomes their sum
// by the tree, and true.
template <int Count>
__device__ __forceinline__ bool join_runs(const matmul_kernel_args& args, int item, unsigned* last,
                                          float (&d)[Count]) {
  constexpr int quads = Count / 4;
  const int runs = args.weights.runs;
  const int tile = item / runs;
  const auto place = [&](int run, int j) {
    return (std::int64_t{tile} * runs + run) * quads * warpgroup_threads + j * warpgroup_threads +
           static_cast<int>(threadIdx.x);
  };
#pragma unroll
  for (int j = 0; j < quads; ++j) {
    args.partials[place(item % runs, j)] =
        make_float4(d[j * 4], d[j * 4 + 1], d[j * 4 + 2], d[j * 4 + 3]);
  }
  __threadfence();
  named_sync<warpgroup_threads>(1);
  if (threadIdx.x == 0) {
    *last = atomicAdd(args.done + tile, 1U) == static_cast<unsigned>(runs) - 1 ? 1U : 0U;
    if (*last != 0) args.done[tile] = 0;
    __threadfence();
  }
  named_sync<warpgroup_threads>(1);
  if (*static_cast<volatile unsigned*>(last) == 0) return false;
#pragma unroll
  for (int j = 0; j < quads; ++j) {
    float4 sums[matmul_runs_max];
#pragma unroll
    for (int run = 0; run < matmul_runs_max; ++run) {
      if (run < runs) sums[run] = __ldcg(args.partials + place(run, j));
    }
    const auto sum = [&](float float4::*part) {
      float of[matmul_runs_max];
#pragma unroll
      for (int run = 0; run < matmul_runs_max; ++run) of[run] = run < runs ? sums[run].*part : 0.0F;
      return tree_of_runs(of, runs);
    };
    d[j * 4] = sum(&float4::x);
    d[j * 4 + 1] = sum(&float4::y);
    d[j * 4 + 2] = sum(&float4::z);
    d[j * 4 + 3] = sum(&float4::w);
  }
  return true;
}

template <class Shape, bool Gated>
__device__ __forceinline__ void consume(const matmul_kernel_args& args, int items, unsigned* last,
                                        ring<Shape> from) {
  wait_for_previous();  // which may still read what this kernel writes
  for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
    const int runs = args.weights.runs;
    const int first = item / runs * 64;
    float d[Shape::tokens / 2];
    const row_scales scales(args, first);
    if constexpr (Shape::float8) {
      multiply_float8_run(from, args.weights, item % runs, scales, d);
    } else {
      multiply_run(from, 0, args.weights, item % runs, scales, d);
    }
    if (!Gated && runs > 1 && !join_runs(args, item, last, d)) continue;
    store_tile<Gated>(args, d, first, 0);
  }
}

template <int Tokens, bool Gated, bool Float8, int Residents>
__global__ void __launch_bounds__(threads, Residents)
    few_rows_kernel(const __grid_constant__ wgmma_maps maps,
                    const __grid_constant__ matmul_kernel_args args, int items) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using shape = few_rows_shape<Tokens, Float8, Residents>;
  extern __shared__ unsigned char shared[];
  const std::uint32_t begin = shared_address(shared);
  const std::uint32_t memory =
      (begin + swizzle_atom_bytes - 1) / swizzle_atom_bytes * swizzle_atom_bytes;
  constexpr int ring_bytes = shape::stages * shape::stage_bytes;
  auto* const last = reinterpret_cast<unsigned*>(shared + (memory - begin) + ring_bytes +
                                                 barrier_area_bytes - sizeof(unsigned));
  const ring<shape> stages{.memory = memory, .barriers = memory + ring_bytes};
  if (threadIdx.x == 0) init_ring<shape>(stages.barriers, 2, 4);
  __syncthreads();
  release_next();
  if (threadIdx.x >= warpgroup_threads) {
    if (threadIdx.x == warpgroup_threads) {
      prefetch_map(maps.weights);
      prefetch_map(maps.input);
      produce<shape, Gated>(maps, args, items, stages);
    }
  } else {
    consume<shape, Gated>(args, items, last, stages);
  }
#else
  __trap();  // has_wgmma() is asked first
#endif
}

template <int Tokens, bool Gated, bool Float8, int Residents>
cudaError_t launch_shape_of(cudaStream_t stream, const matmul_kernel_args& args) {
  using shape = few_rows_shape<Tokens, Float8, Residents>;
  wgmma_maps maps;
  const wgmma_boxes boxes{.weight_rows = 64, .input_rows = min(args.rows, Tokens)};
  cudaError_t code = make_wgmma_maps(args, boxes, &maps);
  if (code != cudaSuccess) return code;
  code =
      allow_shared_memory(few_rows_kernel<Tokens, Gated, Float8, Residents>, shape::shared_bytes);
  if (code != cudaSuccess) return code;
  const int items = static_cast<int>((args.weights.outputs + 63) / 64) * args.weights.runs;
  const auto grid = static_cast<unsigned>(min(items, Residents * multiprocessors()));
  return launch(stream,
                {.grid = dim3(grid), .block = dim3(threads), .shared_bytes = shape::shared_bytes},
                few_rows_kernel<Tokens, Gated, Float8, Residents>, maps, args, items);
}

// How much of so many CTAs' time the items take.
double busy_share(const matmul_kernel_args& args, int residents) {
  const auto items = static_cast<int>((args.weights.outputs + 63) / 64) * args.weights.runs;
  const int slots = residents * multiprocessors();
  return static_cast<double>(items) / ((items + slots - 1) / slots * slots);
}

template <int Tokens, bool Float8, int Residents>
cudaError_t launch_gate(cudaStream_t stream, const matmul_kernel_args& args) {
  if (args.fused != gate::none) {
    return launch_shape_of<Tokens, true, Float8, Residents>(stream, args);
  }
  return launch_shape_of<Tokens, false, Float8, Residents>(stream, args);
}

template <int Tokens, bool Float8>
cudaError_t launch_tokens(cudaStream_t stream, const matmul_kernel_args& args) {
  if constexpr (Tokens <= 16) {  // for more there are not enough registers
    if (busy_share(args, 3) > busy_share(args, 2)) {
      return launch_gate<Tokens, Float8, 3>(stream, args);
    }
  }
  return launch_gate<Tokens, Float8, 2>(stream, args);
}

// The N of wgmma for so many rows.
int tokens_for(std::int64_t rows) {
  int tokens = 8;
  while (tokens < rows) tokens *= 2;
  return tokens;
}

template <bool Float8>
cudaError_t launch_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  switch (tokens_for(args.rows)) {
    case 8:
      return launch_tokens<8, Float8>(stream, args);
    case 16:
      return launch_tokens<16, Float8>(stream, args);
    case 32:
      return launch_tokens<32, Float8>(stream, args);
    case 64:
      return launch_tokens<64, Float8>(stream, args);
    default:
      break;
  }
  if constexpr (Float8) return cudaErrorInvalidValue;
  return launch_tokens<128, false>(stream, args);
}

// Registers for more there are not.
constexpr int float8_rows_max = 64;

// So many rows at a time: reading the weights again costs less than widening them.
cudaError_t launch_float8(cudaStream_t stream, const matmul_kernel_args& whole) {
  for (int first = 0; first < whole.rows; first += float8_rows_max) {
    matmul_kernel_args part = whole;
    part.rows = min(float8_rows_max, whole.rows - first);
    part.input += first * whole.input_stride;
    if (whole.output != nullptr) part.output += first * whole.output_stride;
    if (whole.gated != nullptr) {
      const int element = whole.gated_is_bfloat16 ? sizeof(bfloat16) : sizeof(float);
      part.gated = static_cast<std::byte*>(whole.gated) + first * whole.gated_stride * element;
    }
    const cudaError_t code = launch_rows<true>(stream, part);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

std::size_t wgmma_partial_bytes(const matmul_weights& weights, std::int64_t rows) {
  if (weights.runs == 1) return 0;
  return static_cast<std::size_t>((weights.outputs + 63) / 64 * 64 * tokens_for(rows)) *
         static_cast<std::size_t>(weights.runs) * sizeof(float);
}

cudaError_t wgmma_few_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  if (args.weights.type == weight_type::float8_e4m3) return launch_float8(stream, args);
  return launch_rows<false>(stream, args);
}

}  // namespace troupe::kernels::cuda
