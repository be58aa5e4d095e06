#include "kernels/attention/attention.cuh"

#include <algorithm>
#include <vector>

#include "kernels/attention/attention_join.cuh"
#include "kernels/attention/attention_many_rows.cuh"
#include "kernels/attention/attention_simt.cuh"
#include "kernels/attention/attention_wgmma.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr double log2_of_e = 1.4426950408889634;
constexpr int head_dim_max = 256;

int template_head_dim(int head_dim) {
  for (const int dim : {32, 64, 96, 128}) {
    if (head_dim <= dim) return dim;
  }
  return head_dim_max;
}

// Floats that a head keeps of a tile.
std::size_t floats_of_tile(int head_dim) {
  return static_cast<std::size_t>(template_head_dim(head_dim)) + 4;
}

std::int64_t tiles_of(std::int64_t positions) {
  return (positions + attention_tile_positions - 1) / attention_tile_positions;
}

// The most query heads that read one cache head.
int largest_group(const attention_launch& what) {
  std::vector<int> counts(static_cast<std::size_t>(what.kv_heads), 0);
  for (int head = 0; head < what.heads; ++head) {
    ++counts[static_cast<std::size_t>(what.host_kv_head_of[head])];
  }
  return *std::max_element(counts.begin(), counts.end());
}

attention_args_device device_args(const attention_launch& what) {
  return {.query = what.query,
          .query_stride = what.query_stride,
          .keys = static_cast<const bfloat16*>(what.keys),
          .values = static_cast<const bfloat16*>(what.values),
          .blocks = what.blocks,
          .head_dim = what.head_dim,
          .heads = what.heads,
          .kv_head_of = what.kv_head_of,
          .sequences = what.sequences,
          .scale_log2 = static_cast<float>(static_cast<double>(what.scale) * log2_of_e),
          .window = what.window,
          .output = what.output,
          .output_is_bfloat16 = what.output_is_bfloat16,
          .output_stride = what.output_stride};
}

// The work of many rows, by the kernel that does it.
struct row_tiles {
  std::vector<row_tile> by_mma;
  std::vector<row_tile> by_wgmma;

  row_tiles(const attention_launch& what, int group) {
    const bool wgmma = !what.without_wgmma && can_attend_by_wgmma(what);
    for (std::int64_t i = 0; i < what.sequence_count; ++i) {
      if (what.shapes[i].rows <= 1) continue;
      const std::int64_t packed = what.shapes[i].rows * group;
      // A few rows would leave most of a larger tile empty.
      const bool large = wgmma && packed > many_rows_tile;
      std::vector<row_tile>& tiles = large ? by_wgmma : by_mma;
      const int each = large ? wgmma_rows_tile : many_rows_tile;
      for (std::int64_t first = 0; first < packed; first += each) {
        tiles.push_back({static_cast<std::int32_t>(i), static_cast<std::int32_t>(first)});
      }
    }
    // Later rows see more positions: the longest work first.
    std::reverse(by_mma.begin(), by_mma.end());
    std::reverse(by_wgmma.begin(), by_wgmma.end());
  }
};

const row_tile* on_device(const attention_launch& what, const std::vector<row_tile>& tiles) {
  return static_cast<const row_tile*>(
      what.upload(what.upload_state, tiles.data(), tiles.size() * sizeof(row_tile)));
}

template <int HeadDim>
cudaError_t many_rows(cudaStream_t stream, const attention_launch& what, int group) {
  const row_tiles tiles(what, group);
  if (!tiles.by_wgmma.empty()) {
    const cudaError_t code = attend_by_wgmma(stream, device_args(what),
                                             {.tiles = on_device(what, tiles.by_wgmma),
                                              .count = tiles.by_wgmma.size(),
                                              .kv_heads = what.kv_heads});
    if (code != cudaSuccess) return code;
  }
  if (tiles.by_mma.empty()) return cudaSuccess;
  constexpr std::size_t shared = many_rows_shared_bytes<HeadDim>;
  const cudaError_t allowed = allow_shared_memory(many_rows_kernel<HeadDim>, shared);
  if (allowed != cudaSuccess) return allowed;
  return launch(stream,
                {.grid = dim3(static_cast<unsigned>(tiles.by_mma.size()),
                              static_cast<unsigned>(what.kv_heads)),
                 .block = dim3(many_rows_warps * warp_threads),
                 .shared_bytes = shared},
                many_rows_kernel<HeadDim>, device_args(what), on_device(what, tiles.by_mma));
}

template <int HeadDim>
cudaError_t one_row(cudaStream_t stream, const attention_launch& what, int group) {
  std::vector<std::int32_t> single;
  std::int64_t positions = 0;
  for (std::int64_t i = 0; i < what.sequence_count; ++i) {
    if (what.shapes[i].rows != 1) continue;
    single.push_back(static_cast<std::int32_t>(i));
    positions = std::max(positions, what.shapes[i].positions_max);
  }
  if (single.empty()) return cudaSuccess;
  const auto sequences = static_cast<std::int64_t>(single.size());
  if (attention_workspace_bytes(sequences, positions, what.heads, what.head_dim) >
      what.workspace_bytes) {
    return cudaErrorInvalidValue;
  }
  const bool all = sequences == what.sequence_count;
  const one_row_work work{.sequences = all ? nullptr
                                           : static_cast<const std::int32_t*>(
                                                 what.upload(what.upload_state, single.data(),
                                                             single.size() * sizeof(std::int32_t))),
                          .row_blocks = (group + 15) / 16,
                          .tiles = static_cast<float*>(what.workspace),
                          .tiles_max = static_cast<int>(tiles_of(positions))};
  constexpr std::size_t shared = one_row_shared_bytes<HeadDim>;
  cudaError_t code = allow_shared_memory(one_row_kernel<HeadDim>, shared);
  if (code != cudaSuccess) return code;
  const attention_args_device args = device_args(what);
  code = launch(stream,
                {.grid = dim3(static_cast<unsigned>(work.tiles_max),
                              static_cast<unsigned>(what.kv_heads * work.row_blocks),
                              static_cast<unsigned>(sequences)),
                 .block = dim3(one_row_threads),
                 .shared_bytes = shared},
                one_row_kernel<HeadDim>, args, work);
  if (code != cudaSuccess) return code;
  return launch(stream,
                {.grid = dim3(static_cast<unsigned>(what.heads), static_cast<unsigned>(sequences)),
                 .block = dim3(join_threads)},
                join_kernel<HeadDim>, args, work);
}

template <int HeadDim>
cudaError_t attend_with(cudaStream_t stream, const attention_launch& what) {
  const int group = largest_group(what);
  const cudaError_t many = many_rows<HeadDim>(stream, what, group);
  return many == cudaSuccess ? one_row<HeadDim>(stream, what, group) : many;
}

}  // namespace

std::size_t attention_workspace_bytes(std::int64_t sequences, std::int64_t positions, int heads,
                                      int head_dim) {
  const std::size_t rows = static_cast<std::size_t>(sequences) * static_cast<std::size_t>(heads);
  return rows * static_cast<std::size_t>(tiles_of(positions)) * floats_of_tile(head_dim) *
         sizeof(float);
}

cudaError_t attention(cudaStream_t stream, const attention_launch& what) {
  if (what.sequence_count == 0 || what.heads == 0) return cudaSuccess;
  if (what.heads > attention_heads_max || !(what.scale > 0.0F)) return cudaErrorInvalidValue;
  // By what never changes for a model, so that no query meets another arithmetic.
  if (!what.cache_is_bfloat16 || what.head_dim % 8 != 0 || what.head_dim > head_dim_max) {
    return attention_simt(stream, what);
  }
  switch (template_head_dim(what.head_dim)) {
    case 32:
      return attend_with<32>(stream, what);
    case 64:
      return attend_with<64>(stream, what);
    case 96:
      return attend_with<96>(stream, what);
    case 128:
      return attend_with<128>(stream, what);
    default:
      return attend_with<head_dim_max>(stream, what);
  }
}

}  // namespace troupe::kernels::cuda
