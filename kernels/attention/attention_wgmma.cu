// Two warpgroups of 64 packed rows each multiply what the third fetches: tiles of 64 positions of K
// and V, by the copy engine from the paged cache. The two take turns at the tensor cores: one
// weighs its scores and joins its sums while the other multiplies.
#include "kernels/attention/attention_wgmma.cuh"

#include "kernels/attention/attention_wgmma_tiles.cuh"
#include "kernels/cuda/tensor_map.cuh"

// For other devices the kernels are empty, and what they are made of is not used.
#pragma nv_diag_suppress 177

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 3 * warpgroup_threads;
// Named barriers: 0 is __syncthreads(), 2 and 3 are of one warpgroup each, then their turns.
constexpr int first_group_barrier = 2;
constexpr int first_turn_barrier = 4;

template <int Columns>
__device__ __forceinline__ auto flat(float (&d)[Columns][4]) -> float (&)[Columns * 4] {
  return reinterpret_cast<float(&)[Columns * 4]>(d);
}

template <class T, int Columns>
__device__ __forceinline__ void pin_all(T (&d)[Columns][4]) {
#pragma unroll
  for (int i = 0; i < Columns; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) pin(d[i][j]);
  }
}

// A warpgroup that multiplies: 64 packed rows from `first` on.
template <int HeadDim>
struct row_warpgroup {
  using shape = wgmma_attention_shape<HeadDim>;
  std::uint32_t queries;  // swizzled, in shared memory
  float scale_log2;
  visible_range seen;          // of this lane's two rows
  std::int32_t all_see_first;  // positions that all valid rows of the warp see
  std::int32_t all_see_last;
  int number;  // of the two

  // Weights of a tile.
  struct about {
    float maximum[2];
    float weight[2];
  };

  __device__ __forceinline__ void multiply_keys(std::uint32_t keys,
                                                float (&scores)[attention_columns][4]) const {
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < HeadDim / 16; ++step) {
      const int part = step / 4 * part_bytes;
      wgmma_step(flat(scores), descriptor(queries + part) + 2 * (step % 4),
                 descriptor(keys + part) + 2 * (step % 4), step > 0);
    }
    wgmma_commit();
  }
  __device__ __forceinline__ static void multiply_values(
      const std::uint32_t (&weights)[tile_blocks_count][4], std::uint32_t values,
      float (&out)[HeadDim / 8][4]) {
    wgmma_fence();
    const std::uint64_t b = descriptor_across(values, block_part_bytes);
#pragma unroll
    for (int step = 0; step < tile_blocks_count; ++step) {
      wgmma_step_across(flat(out), weights[step], b + step * (shape::block_bytes / 16), step > 0);
    }
    wgmma_commit();
  }
  // Scores that have come become weights.
  __device__ __forceinline__ about weigh_tile(std::int32_t tile,
                                              float (&scores)[attention_columns][4]) const {
    const std::int32_t position = tile * attention_tile_positions;
    if (position < all_see_first || position + attention_tile_positions - 1 > all_see_last) {
#pragma unroll
      for (int j = 0; j < attention_columns; ++j) hide_unseen(scores[j], position + j * 8, seen);
    }
    about of;
    weigh(scores, 0, scale_log2, of.maximum[0], of.weight[0]);
    weigh(scores, 1, scale_log2, of.maximum[1], of.weight[1]);
    return of;
  }

  __device__ __forceinline__ static void take(const about& of, attention_sums<HeadDim>& sums) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sums.maximum[half] = of.maximum[half];
      sums.weight[half] = of.weight[half];
    }
  }

  __device__ __forceinline__ void attend(const cta_rows& rows, ring<shape> from,
                                         attention_sums<HeadDim>& total) const {
    float scores[attention_columns][4] = {};
    std::uint32_t weights[tile_blocks_count][4];
    attention_sums<HeadDim> sums;
    sums.clear();
    ring<shape> ahead = from;  // the stage of the keys that are next
    ahead.wait_full();
    multiply_keys(ahead.address(), scores);
    wgmma_finish(flat(scores));
    about next = weigh_tile(rows.first_tile, scores);
#pragma unroll
    for (int i = 0; i < tile_blocks_count; ++i) pack_step(scores, i, weights[i]);
    ahead.advance();
    if (rows.first_tile < rows.last_tile) ahead.wait_full();
    if (number == 1) pass_turn();
    for (std::int32_t tile = rows.first_tile; tile < rows.last_tile; ++tile) {
      wait_for_turn();
      multiply_keys(ahead.address(), scores);
      multiply_values(weights, from.address() + shape::tile_bytes, sums.out);
      if (number == 0 || tile + 1 < rows.last_tile) pass_turn();
      take(next, sums);
      wgmma_wait<1>();
      pin_all(scores);
      next = weigh_tile(tile + 1, scores);
      // Weights are computed while the values are multiplied: between the two stands this loop,
      // over which neither the compiler nor the assembler moves what looks as if it could wait.
      pin_all(scores);
      ahead.advance();
      if (tile + 1 < rows.last_tile) ahead.wait_full();
      wgmma_wait<0>();
      pin_all(sums.out);
      pin_all(weights);
      release_stage<1>(from.empty());
      from.advance();
#pragma unroll
      for (int i = 0; i < tile_blocks_count; ++i) pack_step(scores, i, weights[i]);
      join_tile(total, sums);
    }
    multiply_values(weights, from.address() + shape::tile_bytes, sums.out);
    take(next, sums);
    wgmma_wait<0>();
    pin_all(sums.out);
    pin_all(weights);
    join_tile(total, sums);
  }

 private:
  // Otherwise both would multiply, then both would weigh. Each passes as often as the other waits.
  __device__ __forceinline__ void wait_for_turn() const {
    named_sync<2 * warpgroup_threads>(first_turn_barrier + number);
  }
  __device__ __forceinline__ void pass_turn() const {
    named_arrive<2 * warpgroup_threads>(first_turn_barrier + 1 - number);
  }
};

// This warpgroup's queries as bfloat16, a half of a row a thread.
template <int HeadDim>
__device__ __forceinline__ void store_queries(const attention_args_device& args,
                                              const device_sequence& sequence,
                                              const head_group& group, std::int64_t first,
                                              std::uint32_t to) {
  constexpr int units = HeadDim / 16;
  const int row = static_cast<int>(threadIdx.x) % warpgroup_threads / 2;
  const int begin = static_cast<int>(threadIdx.x) % 2 * units;
  const std::int64_t packed = first + row;
  const bool valid = packed < sequence.rows * group.count;
  const float* const from =
      valid ? args.query + (sequence.first_row + packed / group.count) * args.query_stride +
                  std::int64_t{group.heads[packed % group.count]} * args.head_dim
            : args.query;
#pragma unroll
  for (int unit = begin; unit < begin + units; ++unit) {
    uint4 packed_eight{};
    if (valid && unit * 8 < args.head_dim) {
      const auto low = *reinterpret_cast<const float4*>(from + unit * 8);
      const auto high = *reinterpret_cast<const float4*>(from + unit * 8 + 4);
      packed_eight = make_uint4(pack_pair(low.x, low.y), pack_pair(low.z, low.w),
                                pack_pair(high.x, high.y), pack_pair(high.z, high.w));
    }
    store_shared(to + swizzled(row, unit, part_bytes), packed_eight);
  }
}

template <int HeadDim>
__device__ __forceinline__ void attend_rows(const attention_args_device& args, const cta_rows& rows,
                                            const head_group& group, std::uint32_t queries,
                                            ring<wgmma_attention_shape<HeadDim>> stages) {
  const device_sequence& sequence = rows.sequence;
  const int warpgroup = static_cast<int>(threadIdx.x) / warpgroup_threads - 1;
  const std::int64_t first = rows.first + warpgroup * 64;
  const std::int64_t packed = sequence.rows * group.count;
  const std::uint32_t mine = queries + warpgroup * wgmma_attention_shape<HeadDim>::tile_bytes;
  store_queries<HeadDim>(args, sequence, group, first, mine);
  publish_to_async();
  named_sync<warpgroup_threads>(first_group_barrier + warpgroup);
  const lane_rows of_lane = rows_of_lane(sequence, group, first + group_warp() * 16);
  const std::int64_t warp_first = first + group_warp() * 16;
  const std::int64_t warp_end = min(packed, warp_first + 16);
  row_warpgroup<HeadDim> with{
      .queries = mine,
      .scale_log2 = args.scale_log2,
      .seen = range_of(args, sequence, of_lane),
      .all_see_first = static_cast<std::int32_t>(
          args.window > 0 ? sequence.first_position + (warp_end - 1) / group.count - args.window + 1
                          : 0),
      .all_see_last = static_cast<std::int32_t>(sequence.first_position + warp_first / group.count),
      .number = warpgroup};
  attention_sums<HeadDim> total;
  total.clear();
  with.attend(rows, stages, total);
  store_rows<HeadDim>(args, sequence, of_lane, total);
}

template <int HeadDim>
__global__ void __launch_bounds__(threads, 1)
    wgmma_rows_kernel(const __grid_constant__ attention_args_device args,
                      const __grid_constant__ cache_maps maps,
                      const __grid_constant__ wgmma_rows_work work) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using shape = wgmma_attention_shape<HeadDim>;
  extern __shared__ unsigned char shared[];
  const std::uint32_t begin = shared_address(shared);
  const std::uint32_t memory =
      (begin + swizzle_atom_bytes - 1) / swizzle_atom_bytes * swizzle_atom_bytes;
  const std::uint32_t queries = memory + shape::stages * shape::stage_bytes;
  const ring<shape> stages{.memory = memory, .barriers = queries + shape::queries_bytes};
  auto& group =
      *reinterpret_cast<head_group*>(shared + (stages.barriers - begin) + barrier_area_bytes);
  if (threadIdx.x == 0) init_ring<shape>(stages.barriers, 1, 8);
  wait_for_previous();
  release_next();
  const row_tile mine = work.tiles[blockIdx.x / static_cast<unsigned>(work.kv_heads)];
  cta_rows rows{.sequence = args.sequences[mine.sequence],
                .kv_head = static_cast<int>(blockIdx.x % static_cast<unsigned>(work.kv_heads)),
                .first = mine.first};
  find_group(args, rows.kv_head, group);
  __syncthreads();
  const std::int64_t packed = rows.sequence.rows * group.count;
  if (mine.first >= packed) return;
  const std::int64_t first = rows.sequence.first_position + mine.first / group.count;
  const std::int64_t end = min(packed, rows.first + wgmma_rows_tile);
  const std::int64_t sees = args.window > 0 ? max(std::int64_t{0}, first - args.window + 1) : 0;
  rows.first_tile = static_cast<std::int32_t>(sees / attention_tile_positions);
  rows.last_tile = static_cast<std::int32_t>(
      (rows.sequence.first_position + (end - 1) / group.count) / attention_tile_positions);
  if (threadIdx.x < warpgroup_threads) {
    give_registers();
    if (threadIdx.x < warp_threads) tile_producer<HeadDim>(args, maps, rows).produce(stages);
  } else {
    take_registers();
    attend_rows<HeadDim>(args, rows, group, queries, stages);
  }
#else
  __trap();  // can_attend_by_wgmma() is asked first
#endif
}

cudaError_t encode_cache(const attention_args_device& args, cache_maps* made) {
  const auto rows = static_cast<cuuint64_t>(made->rows);
  const auto dims = static_cast<cuuint64_t>(args.head_dim);
  const cuuint64_t row_bytes = dims * sizeof(bfloat16);
  const cudaError_t code = encode_map({.data = args.keys,
                                       .sizes = {dims, rows},
                                       .strides = {row_bytes},
                                       .box = {part_dims, cache_block_positions}},
                                      &made->keys);
  if (code != cudaSuccess) return code;
  const auto parts = static_cast<cuuint32_t>(dims / part_dims);
  return encode_map({.data = args.values,
                     .rank = 3,
                     .sizes = {part_dims, rows, parts},
                     .strides = {row_bytes, k_tile_row_bytes},
                     .box = {part_dims, cache_block_positions, parts}},
                    &made->values);
}

template <int HeadDim>
cudaError_t launch_rows(cudaStream_t stream, const attention_args_device& args,
                        const wgmma_rows_work& work) {
  cache_maps maps;
  maps.rows = static_cast<std::int32_t>(work.kv_heads * args.blocks * cache_block_positions);
  cudaError_t code = encode_cache(args, &maps);
  if (code != cudaSuccess) return code;
  constexpr std::size_t shared = wgmma_attention_shape<HeadDim>::shared_bytes;
  code = allow_shared_memory(wgmma_rows_kernel<HeadDim>, shared);
  if (code != cudaSuccess) return code;
  return launch(
      stream,
      {.grid = dim3(static_cast<unsigned>(work.count) * static_cast<unsigned>(work.kv_heads)),
       .block = dim3(threads),
       .shared_bytes = shared},
      wgmma_rows_kernel<HeadDim>, args, maps, work);
}

bool aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

}  // namespace

bool can_attend_by_wgmma(const attention_launch& what) {
  const std::int64_t rows = what.kv_heads * what.blocks * cache_block_positions;
  const bool dims = what.head_dim == 64 || what.head_dim == 128;
  return dims && rows > 0 && rows <= INT32_MAX - cache_block_positions &&
         what.query_stride % 4 == 0 && aligned(what.query) && aligned(what.keys) &&
         aligned(what.values) && has_wgmma();
}

cudaError_t attend_by_wgmma(cudaStream_t stream, const attention_args_device& args,
                            const wgmma_rows_work& work) {
  return args.head_dim == 64 ? launch_rows<64>(stream, args, work)
                             : launch_rows<128>(stream, args, work);
}

}  // namespace troupe::kernels::cuda
