// The seam between forward passes and devices: every operation a model may use.
//
// A model (models/) calls ops over tensor views and a queue and knows nothing of the device. CPU
// ops run at once on the queue's threads; a CUDA queue enqueues them, may fuse neighbours and may
// record a whole step. Spans of ids, slots, tables and angles are host memory, best the queue's
// step memory; spans of weights, biases and head maps are constants that outlive the ops object.
//
// Arithmetic rules that every implementation keeps: each output element is computed in one order
// that does not depend on batch size, chunking, threads or ranks; sums over a sharded dimension are
// taken per canonical run from zero in float32 and added in the fixed binary tree.
//
// Call from one thread per queue. Arguments are checked with TROUPE_CHECK: a wrong shape is a
// defect of the model's code.
//
//   ops.rms_norm(queue, {.input = x, .weight = w, .epsilon = 1e-6F, .output = normed});
//   ops.matmul(queue, {.input = normed, .weights = &qkv, .output = projected});
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/packed_tensor.hpp"
#include "kernels/queue.hpp"
#include "kernels/tensor.hpp"
#include "kernels/vocabulary/vocabulary_types.hpp"

namespace troupe::kernels {

inline constexpr std::int64_t kv_block_tokens = 16;

struct embed_args {
  const packed_tensor* table = nullptr;     // [local vocabulary][hidden_size]
  std::span<const std::int32_t> local_ids;  // rows of the table
  tensor_view output;                       // float32 [local_ids.size()][hidden_size]
};

// output = input / sqrt(mean(input^2) + epsilon) * weight, each row (of each head) by itself.
struct rms_norm_args {
  tensor_view input;              // float32 [rows][columns] or [rows][heads][head_dim]
  std::span<const float> weight;  // the last dimension's size
  float epsilon = 1e-6F;
  tensor_view output;  // float32 or bfloat16, the input's shape; may be the input itself
};

// output[row][o] = sum over inputs of input[row][i] * W[o][i] (+ bias[o]).
// Runs are summed from zero, then added in the binary tree over the runs.
struct matmul_args {
  tensor_view input;  // [rows][inputs], of the weights' dtype
  const packed_tensor* weights = nullptr;
  std::span<const float> bias;  // empty, or [outputs]; added last
  tensor_view output;           // float32 [rows][outputs]
};

// Rotates halves: (a, b) -> (a cos - b sin, b cos + a sin), a = x[..., i], b = x[..., i +
// head_dim/2].
struct rotary_args {
  tensor_view heads;           // float32 [tokens][heads][head_dim], in place
  std::span<const float> cos;  // [tokens][head_dim / 2]
  std::span<const float> sin;
};

// One layer's cache of one rank: K of (head, block) is 16 * head_dim elements at
// (head * blocks + block) * 16 * head_dim, as [token][head_dim]; V likewise, apart.
struct kv_view {
  device_handle keys;
  device_handle values;
  dtype type = dtype::bfloat16;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t blocks = 0;
};

struct write_kv_args {
  tensor_view keys;    // float32 [tokens][heads][head_dim]
  tensor_view values;  // the same
  kv_view cache;
  std::span<const std::int64_t> slots;  // per token: block * 16 + place in the block
};

// Causal attention over stored K and V, in absolute blocks of 16 positions, in ascending order. The
// arithmetic for one query depends on its position and window alone. What the cache holds at
// positions that the query does not see never matters, NaN included.
struct attention_args {
  tensor_view query;  // float32 [tokens][heads][head_dim]
  kv_view cache;
  std::span<const std::int32_t> kv_head_of;  // per query head: its head in the cache
  std::span<const sequence_rows> sequences;
  float scale = 1.0F;
  std::optional<std::int64_t> window = std::nullopt;  // positions seen, the query's own included
  tensor_view output;  // float32 or bfloat16 [tokens][heads][head_dim]
};

enum class gate_kind : std::uint8_t { silu, gelu_tanh, gelu };

// output = act(gate) * up.
struct gated_activation_args {
  tensor_view gate;  // float32 [rows][columns]
  tensor_view up;    // the same
  gate_kind kind = gate_kind::silu;
  tensor_view output;  // float32 or bfloat16
};

// target += addend (+ bias), element by element, in this order.
struct add_args {
  tensor_view target;           // float32 [rows][columns]
  tensor_view addend;           // the same
  std::span<const float> bias;  // empty, or [columns]; added to the addend first
};

struct gather_rows_args {
  tensor_view input;  // float32 [rows][columns]
  std::span<const std::int32_t> rows;
  tensor_view output;  // float32 [rows.size()][columns]
};

// Per canonical run of the vocabulary: maximum, sums of exp, candidates. See vocabulary_types.hpp.
struct summarise_vocabulary_args {
  tensor_view logits;                      // float32 [rows][local vocabulary]
  std::span<const std::int64_t> run_ends;  // within the local vocabulary
  std::int64_t first_token_id = 0;         // of the local vocabulary
  std::span<const sampling_row> rows;      // one a row of logits
  int candidates = 0;                      // per run and row: 0 .. vocabulary_candidates_max
  std::span<run_summary> summaries;        // [rows][runs]
  std::span<token_candidate> top;          // [rows][runs][candidates], by logit, then lower id
};

class ops {
 public:
  ops() = default;
  ops(const ops&) = delete;
  ops& operator=(const ops&) = delete;
  virtual ~ops() = default;

  virtual void embed(queue& on, const embed_args& args) = 0;
  virtual void rms_norm(queue& on, const rms_norm_args& args) = 0;
  virtual void matmul(queue& on, const matmul_args& args) = 0;
  virtual void rotary(queue& on, const rotary_args& args) = 0;
  virtual void write_kv(queue& on, const write_kv_args& args) = 0;
  virtual void attention(queue& on, const attention_args& args) = 0;
  virtual void gated_activation(queue& on, const gated_activation_args& args) = 0;
  virtual void add(queue& on, const add_args& args) = 0;
  virtual void gather_rows(queue& on, const gather_rows_args& args) = 0;
  virtual void summarise_vocabulary(queue& on, const summarise_vocabulary_args& args) = 0;
};

}  // namespace troupe::kernels
