// Attention over the paged cache on CUDA: launches only, over device pointers.
//
// Arithmetic (part of the contract): a query's result depends on its position, the window and what
// it sees alone, never on chunking, batch or which of the kernels ran. Positions are taken in
// absolute tiles of 64; each tile's maximum, weight and weighted values are computed by themselves
// (queries, K, V and weights in bfloat16, sums in float32) and joined in ascending order. What the
// cache holds at positions that no query of a launch sees never matters, NaN included.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

// kernels::sequence_rows as the device reads it: `table` is a device address.
struct device_sequence {
  std::int64_t first_row;
  std::int64_t rows;
  std::int64_t first_position;
  const std::int32_t* table;
  std::int64_t table_blocks;
};

// What the host knows of a sequence when it launches: geometry only. `rows` is exact;
// positions_max bounds first_position + rows (a captured graph is replayed with other positions).
struct sequence_shape {
  std::int64_t rows = 0;
  std::int64_t positions_max = 0;
};

struct attention_launch {
  const float* query = nullptr;   // [tokens][heads][head_dim]
  std::int64_t query_stride = 0;  // elements from token to token
  const void* keys = nullptr;     // (head * blocks + block) * 16 * head_dim, [token][head_dim]
  const void* values = nullptr;
  bool cache_is_bfloat16 = true;
  std::int64_t blocks = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int heads = 0;                                  // query heads
  const std::int32_t* kv_head_of = nullptr;       // device, [heads]
  const std::int32_t* host_kv_head_of = nullptr;  // the same on the host, for geometry
  const device_sequence* sequences = nullptr;     // device, [sequence_count]
  const sequence_shape* shapes = nullptr;         // host, [sequence_count]
  std::int64_t sequence_count = 0;
  float scale = 1.0F;       // positive
  std::int64_t window = 0;  // 0: all
  void* output = nullptr;   // [tokens][heads][head_dim]
  bool output_is_bfloat16 = true;
  std::int64_t output_stride = 0;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  // For small tables that a launch needs on the device (e.g. which query tiles there are): returns
  // a device copy of host bytes, valid until the step ends. Not used where every sequence has one
  // row.
  const void* (*upload)(void* state, const void* host, std::size_t bytes) = nullptr;
  void* upload_state = nullptr;
  bool without_wgmma = false;  // to compare: no other bits, only slower
};

// Units: bytes for steps of at most `sequences` sequences with one row each, over `positions`.
[[nodiscard]] std::size_t attention_workspace_bytes(std::int64_t sequences, std::int64_t positions,
                                                    int heads, int head_dim);
[[nodiscard]] cudaError_t attention(cudaStream_t stream, const attention_launch& what);

}  // namespace troupe::kernels::cuda
