// Few rows of the batch: bound by reading the weights. A CTA takes items: up to 64 outputs for each
// of its warpgroups, by one run of the inputs or two. One warp fetches, as many stages in flight as
// shared memory holds, the next item's while the last is stored; the warpgroups multiply. Who
// finishes the last runs of some outputs adds them up.
#include "kernels/matmul/wgmma_float8.cuh"
#include "kernels/matmul/wgmma_plan.cuh"

// For other devices the kernels are empty, and what they are made of is not used.
#pragma nv_diag_suppress 177

namespace troupe::kernels::cuda {
namespace {

// `Residents` CTAs share a multiprocessor.
// A stage: 128 bytes of the outputs, which are 64 inputs (float8: 128, one segment).
template <int Tokens, bool Float8, int Residents>
struct few_rows_shape {
  static constexpr int tokens = Tokens;
  static constexpr int cluster = 1;
  static constexpr bool float8 = Float8;
  static constexpr int groups = groups_for(Tokens);
  // With two the producer has a warpgroup too, to give its registers away.
  static constexpr int threads =
      groups * warpgroup_threads + (groups == 1 ? warp_threads : warpgroup_threads);
  static constexpr int stage_inputs = Float8 ? matmul_float8_segment : matmul_k_tile;
  static constexpr int weights_bytes = groups * weights_group_bytes;
  static constexpr int tile_bytes = Tokens * k_tile_row_bytes;  // of 64 inputs
  static constexpr int input_bytes = tile_bytes * (stage_inputs / matmul_k_tile);
  static constexpr int stage_bytes = weights_bytes + input_bytes;
  // Of 228 KiB, 1 KiB a CTA is the system's.
  static constexpr int fixed_bytes = swizzle_atom_bytes + barrier_area_bytes;
  static constexpr int stages = (228 * 1024 / Residents - 1024 - fixed_bytes) / stage_bytes;
  static constexpr int shared_bytes = stages * stage_bytes + fixed_bytes;
};

// The stages of all that this CTA takes, one after the other.
template <class Shape>
struct stage_walk {
  int item = 0;
  int run = 0;
  int step = 0;
  int steps = 0;

  __device__ __forceinline__ stage_walk(const matmul_weights& weights, const few_rows_plan& plan)
      : item(static_cast<int>(blockIdx.x)) {
    if (item >= plan.items()) return;
    run = item % plan.parts * plan.item_runs;
    settle(weights, plan);
  }
  __device__ __forceinline__ void next(const matmul_weights& weights, const few_rows_plan& plan) {
    if (++step < steps) return;
    step = 0;
    next_run(plan);
    settle(weights, plan);
  }

 private:
  __device__ __forceinline__ void next_run(const few_rows_plan& plan) {
    if (++run % plan.item_runs != 0) return;
    item += static_cast<int>(gridDim.x);
    run = item % plan.parts * plan.item_runs;
  }
  // To the first run from here on that is not empty.
  __device__ __forceinline__ void settle(const matmul_weights& weights, const few_rows_plan& plan) {
    for (; item < plan.items(); next_run(plan)) {
      steps = k_tiles_of(weights, run) * matmul_k_tile / Shape::stage_inputs;
      if (steps > 0) return;
    }
  }
};

template <class Shape, bool Gated>
struct fetcher {
  const wgmma_maps& maps;
  const matmul_kernel_args& args;
  const few_rows_plan& plan;
  std::uint64_t once;  // the weights: first to leave the second-level cache
  std::uint64_t kept;

  // A stage is full after both of these.
  __device__ __forceinline__ void weights(const ring<Shape>& to,
                                          const stage_walk<Shape>& at) const {
    barrier_arrive_expect(to.full(), Shape::groups * plan.group_outputs * k_tile_row_bytes);
    const int column =
        static_cast<int>(args.weights.padded_run_begin[at.run]) + at.step * Shape::stage_inputs;
#pragma unroll
    for (int group = 0; group < Shape::groups; ++group) {
      const copy_target target{to.address() + group * weights_group_bytes, to.full(), once};
      const int first = (at.item / plan.parts * Shape::groups + group) * plan.group_outputs;
      if constexpr (Gated) {
        copy_4d(target, maps.weights, column, first / 16);
      } else {
        copy_2d(target, maps.weights, column, first);
      }
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
                                        const few_rows_plan& plan, ring<Shape> to) {
  const fetcher<Shape, Gated> fetch{maps, args, plan, policy_evict_first(), policy_evict_normal()};
  stage_walk<Shape> at(args.weights, plan);
  // Weights are constants (but widened ones), the batch is not: fill the ring with weights while
  // the kernel before this one ends.
  if (!args.constant_weights) wait_for_previous();
  stage_walk<Shape> input_at = at;
  ring<Shape> input_to = to;
  int filled = 0;
  for (; filled < Shape::stages && at.item < plan.items(); ++filled) {
    fetch.weights(to, at);
    to.advance();
    at.next(args.weights, plan);
  }
  wait_for_previous();
  for (; filled > 0; --filled) {
    fetch.input(input_to, input_at);
    input_to.advance();
    input_at.next(args.weights, plan);
  }
  while (at.item < plan.items()) {
    to.wait_empty();
    fetch.weights(to, at);
    fetch.input(to, at);
    to.advance();
    at.next(args.weights, plan);
  }
}

// The threads of one of two warpgroups.
__device__ __forceinline__ void group_sync() {
  if (threadIdx.x < warpgroup_threads) {
    named_sync<warpgroup_threads>(1);
  } else {
    named_sync<warpgroup_threads>(2);
  }
}

// A warpgroup's part of an item.
struct group_part {
  int tile = 0;  // of one warpgroup's outputs
  int part = 0;  // of the runs
  int parts = 1;
  unsigned* last = nullptr;  // in shared memory

  __device__ __forceinline__ std::int64_t place(int of_part, int quads, int j) const {
    const int thread = static_cast<int>(threadIdx.x) % warpgroup_threads;
    return ((std::int64_t{tile} * parts + of_part) * quads + j) * warpgroup_threads + thread;
  }
};

// Leaves this part's sums in memory. In the warpgroup that is last of the tile's parts: d becomes
// their sum by the tree, and true.
template <int Count>
__device__ __forceinline__ bool join_parts(const matmul_kernel_args& args, const group_part& of,
                                           float (&d)[Count]) {
  constexpr int quads = Count / 4;
#pragma unroll
  for (int j = 0; j < quads; ++j) {
    args.partials[of.place(of.part, quads, j)] =
        make_float4(d[j * 4], d[j * 4 + 1], d[j * 4 + 2], d[j * 4 + 3]);
  }
  __threadfence();
  group_sync();
  if (threadIdx.x % warpgroup_threads == 0) {
    const auto others = static_cast<unsigned>(of.parts) - 1;
    *of.last = atomicAdd(args.done + of.tile, 1U) == others ? 1U : 0U;
    if (*of.last != 0) args.done[of.tile] = 0;
    __threadfence();
  }
  group_sync();
  if (*static_cast<volatile unsigned*>(of.last) == 0) return false;
#pragma unroll
  for (int j = 0; j < quads; ++j) {
    float4 sums[matmul_runs_max];
#pragma unroll
    for (int part = 0; part < matmul_runs_max; ++part) {
      if (part < of.parts) sums[part] = __ldcg(args.partials + of.place(part, quads, j));
    }
    const auto sum = [&](float float4::*component) {
      float parts[matmul_runs_max];
#pragma unroll
      for (int part = 0; part < matmul_runs_max; ++part) {
        parts[part] = part < of.parts ? sums[part].*component : 0.0F;
      }
      return tree_of_runs(parts, of.parts);
    };
    d[j * 4] = sum(&float4::x);
    d[j * 4 + 1] = sum(&float4::y);
    d[j * 4 + 2] = sum(&float4::z);
    d[j * 4 + 3] = sum(&float4::w);
  }
  return true;
}

template <class Shape, bool Gated>
__device__ __forceinline__ void consume(const matmul_kernel_args& args, const few_rows_plan& plan,
                                        unsigned* last, ring<Shape> from) {
  constexpr int count = Shape::tokens / 2;
  const int group = static_cast<int>(threadIdx.x) / warpgroup_threads;
  wait_for_previous();  // which may still read what this kernel writes
  for (int item = static_cast<int>(blockIdx.x); item < plan.items();
       item += static_cast<int>(gridDim.x)) {
    const group_part part{.tile = item / plan.parts * Shape::groups + group,
                          .part = item % plan.parts,
                          .parts = plan.parts,
                          .last = last + group};
    const int first = part.tile * plan.group_outputs;
    const int run = part.part * plan.item_runs;
    const row_scales scales(args, first);
    float d[count];
    if constexpr (Gated || item_runs_max(Shape::tokens) == 1) {
      multiply_one_run(from, group, args.weights, run, scales, d);
    } else {
      for (int i = 0; i < plan.item_runs; ++i) {
        float sums[count];
        multiply_one_run(from, group, args.weights, run + i, scales, sums);
#pragma unroll
        for (int k = 0; k < count; ++k) d[k] = i == 0 ? sums[k] : __fadd_rn(d[k], sums[k]);
      }
    }
    if (!Gated && plan.parts > 1 && !join_parts(args, part, d)) continue;
    // Warps behind the tile's outputs multiplied what nobody fetched.
    if (group_warp() * 16 < plan.group_outputs) store_tile<Gated>(args, d, first, 0);
  }
}

template <int Tokens, bool Gated, bool Float8, int Residents>
__global__ void __launch_bounds__(few_rows_shape<Tokens, Float8, Residents>::threads, Residents)
    few_rows_kernel(const __grid_constant__ wgmma_maps maps,
                    const __grid_constant__ matmul_kernel_args args,
                    const __grid_constant__ few_rows_plan plan) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using shape = few_rows_shape<Tokens, Float8, Residents>;
  extern __shared__ unsigned char shared[];
  const std::uint32_t begin = shared_address(shared);
  const std::uint32_t memory =
      (begin + swizzle_atom_bytes - 1) / swizzle_atom_bytes * swizzle_atom_bytes;
  constexpr int ring_bytes = shape::stages * shape::stage_bytes;
  auto* const last =
      reinterpret_cast<unsigned*>(shared + (memory - begin) + ring_bytes + barrier_area_bytes) -
      shape::groups;
  const ring<shape> stages{.memory = memory, .barriers = memory + ring_bytes};
  if (threadIdx.x == 0) init_ring<shape>(stages.barriers, 2, 4 * shape::groups);
  __syncthreads();
  release_next();
  if (threadIdx.x >= shape::groups * warpgroup_threads) {
    if constexpr (shape::groups == 2) give_registers();
    if (threadIdx.x == shape::groups * warpgroup_threads) {
      prefetch_map(maps.weights);
      prefetch_map(maps.input);
      produce<shape, Gated>(maps, args, plan, stages);
    }
  } else {
    if constexpr (shape::groups == 2) take_registers();
    consume<shape, Gated>(args, plan, last, stages);
  }
#else
  __trap();  // has_wgmma() is asked first
#endif
}

template <int Tokens, bool Gated, bool Float8, int Residents>
cudaError_t launch_kernel(cudaStream_t stream, const matmul_kernel_args& args,
                          const few_rows_plan& plan) {
  using shape = few_rows_shape<Tokens, Float8, Residents>;
  wgmma_maps maps;
  const wgmma_boxes boxes{.weight_rows = plan.group_outputs, .input_rows = min(args.rows, Tokens)};
  cudaError_t code = make_wgmma_maps(args, boxes, &maps);
  if (code != cudaSuccess) return code;
  constexpr auto kernel = few_rows_kernel<Tokens, Gated, Float8, Residents>;
  code = allow_shared_memory(kernel, shape::shared_bytes);
  if (code != cudaSuccess) return code;
  const auto grid = static_cast<unsigned>(min(plan.items(), Residents * multiprocessors()));
  return launch(
      stream,
      {.grid = dim3(grid), .block = dim3(shape::threads), .shared_bytes = shape::shared_bytes},
      kernel, maps, args, plan);
}

template <int Tokens, bool Float8, int Residents>
cudaError_t launch_gate(cudaStream_t stream, const matmul_kernel_args& args,
                        const few_rows_plan& plan) {
  if (args.fused != gate::none) {
    return launch_kernel<Tokens, true, Float8, Residents>(stream, args, plan);
  }
  return launch_kernel<Tokens, false, Float8, Residents>(stream, args, plan);
}

template <int Tokens, bool Float8>
cudaError_t launch_tokens(cudaStream_t stream, const matmul_kernel_args& args, const planned& of) {
  if constexpr (Tokens >= 32) {
    return launch_gate<Tokens, Float8, 1>(stream, args, of.plan);
  } else {
    if (of.residents == 3) return launch_gate<Tokens, Float8, 3>(stream, args, of.plan);
    return launch_gate < Tokens, Float8, Float8 ? 4 : 2 > (stream, args, of.plan);
  }
}

template <bool Float8>
cudaError_t launch_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  const planned of = plan_for(args.weights, args.rows);
  switch (tokens_for(args.rows)) {
    case 8:
      return launch_tokens<8, Float8>(stream, args, of);
    case 16:
      return launch_tokens<16, Float8>(stream, args, of);
    case 32:
      return launch_tokens<32, Float8>(stream, args, of);
    case 64:
      return launch_tokens<64, Float8>(stream, args, of);
    default:
      return launch_tokens<128, Float8>(stream, args, of);
  }
}

}  // namespace

cudaError_t wgmma_few_rows(cudaStream_t stream, const matmul_kernel_args& whole) {
  for (int first = 0; first < whole.rows; first += wgmma_few_rows_max) {
    matmul_kernel_args part = whole;
    part.rows = min(wgmma_few_rows_max, whole.rows - first);
    part.input += first * whole.input_stride;
    if (whole.output != nullptr) part.output += first * whole.output_stride;
    if (whole.gated != nullptr) {
      const std::int64_t element = whole.gated_is_bfloat16 ? sizeof(bfloat16) : sizeof(float);
      part.gated = static_cast<std::byte*>(whole.gated) + first * whole.gated_stride * element;
    }
    const bool float8 = whole.weights.type == weight_type::float8_e4m3;
    const cudaError_t code =
        float8 ? launch_rows<true>(stream, part) : launch_rows<false>(stream, part);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace troupe::kernels::cuda
