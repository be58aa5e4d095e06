// One rank's shard of a model: what the engine calls, whatever the architecture.
//
// Life cycle: loaded once by models::load (models/registry.hpp), immutable afterwards; forward() is
// called by the rank's one engine thread. The residual stream is float32 everywhere, between
// pipeline stages too. The architecture's own file (models/architectures/) says what a layer does.
//
//   TROUPE_TRY_VOID(model.forward(context, batch, hidden));    // every rank
//   TROUPE_TRY_VOID(model.logits(context, hidden, logits));    // last stage
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/vitals.hpp"
#include "kernels/arena.hpp"
#include "kernels/ops.hpp"
#include "models/config.hpp"
#include "models/placement.hpp"
#include "models/rope.hpp"
#include "transport/collective.hpp"

namespace troupe::models {

// What one layer keeps of the past. Layers with equal specs share block tables (a "group").
enum class kv_kind : std::uint8_t { full, sliding };  // later: latent, state

struct kv_spec {
  kv_kind kind = kv_kind::full;
  std::int64_t window = 0;  // positions, sliding only
  friend bool operator==(const kv_spec&, const kv_spec&) = default;
  [[nodiscard]] std::optional<std::int64_t> visible() const noexcept {
    return kind == kv_kind::sliding ? std::optional(window) : std::nullopt;
  }
};

// Where this step's tokens of one group of layers go and what they may read.
struct kv_group_batch {
  std::span<const std::int64_t> slots;                // one a token
  std::span<const kernels::sequence_rows> sequences;  // together they cover all tokens, in order
};

// One step: tokens of many sequences, flattened in the order of the sequences.
struct step_batch {
  std::span<const std::int32_t> token_ids;
  std::span<const float> cos;  // of each token's rotation: [tokens][head_dim / 2], by rope::fill
  std::span<const float> sin;
  std::span<const kv_group_batch> groups;     // in the order of kv_groups(config)
  std::span<const std::int32_t> logits_rows;  // tokens whose successor is wanted
};

// What a forward pass works with. Everything is borrowed for the call.
struct step_context {
  kernels::ops& ops;
  kernels::queue& queue;
  kernels::arena& arena;
  transport::collective& tp;
  transport::collective& pp;
  base::epoch_id epoch;
  std::span<const kernels::kv_view> caches;  // one a layer of this stage
  base::rank_vitals* vitals = nullptr;       // ticked after each layer
};

class model {
 public:
  model() = default;
  model(const model&) = delete;
  model& operator=(const model&) = delete;
  virtual ~model() = default;

  [[nodiscard]] virtual const model_config& config() const noexcept = 0;
  [[nodiscard]] virtual placement where() const noexcept = 0;
  // What makes a step's angles.
  [[nodiscard]] virtual const rope& rotary() const noexcept = 0;

  // Runs this stage's layers. On the last stage `hidden` [logits_rows][hidden_size] (the model's
  // dtype) gets the normalised rows whose logits are wanted; elsewhere it is not touched.
  // Errors: those of the collectives.
  [[nodiscard]] virtual base::result<void> forward(step_context& context, const step_batch& batch,
                                                   const kernels::tensor_view& hidden) = 0;

  // Last stage: rows of `hidden` times this rank's rows of the output embedding.
  // Shape: hidden [rows][hidden_size] -> logits float32 [rows][rank's vocabulary]
  virtual void logits(step_context& context, const kernels::tensor_view& hidden,
                      const kernels::tensor_view& logits) = 0;

  // Units: bytes of arena for a step of `tokens` tokens.
  [[nodiscard]] virtual std::size_t arena_bytes(std::int64_t tokens) const = 0;
};

// The distinct specs of the model's layers, in order of first use: the same on every rank.
[[nodiscard]] std::vector<kv_spec> kv_groups(const model_config& config);
// The group of each layer of the whole model.
[[nodiscard]] std::vector<std::size_t> kv_group_of_layers(const model_config& config);

}  // namespace troupe::models
