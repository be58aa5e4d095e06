#include "models/decoder.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "models/blocks/gated_mlp.hpp"
#include "models/vocabulary_embedding.hpp"

namespace troupe::models {
namespace {

class decoder final : public model {
 public:
  explicit decoder(const model_load& load, rope rotate)
      : config_(load.config),
        where_(load.where),
        type_(load.reader.type()),
        rope_(std::move(rotate)) {}

  [[nodiscard]] base::result<void> load(const model_load& load, load_layer_function load_layer) {
    const range layers = stage_layers(config_, where_);
    if (where_.first_stage() || (where_.last_stage() && config_.tie_word_embeddings)) {
      TROUPE_TRY(embedding, vocabulary_embedding::load(load.reader, config_, where_,
                                                       "model.embed_tokens.weight"));
      embedding_ = std::move(embedding);
    }
    group_of_layer_ = kv_group_of_layers(config_);
    for (std::int64_t index = layers.begin; index < layers.end; ++index) {
      TROUPE_TRY(layer, load_layer({load.reader, config_, where_, index}));
      layers_.push_back(std::move(layer));
    }
    first_layer_ = static_cast<std::size_t>(layers.begin);
    if (!where_.last_stage()) return {};
    TROUPE_TRY(norm, load.reader.vector(
                         {{"model.norm.weight", {0, config_.hidden_size}, config_.hidden_size}}));
    norm_ = std::move(norm);
    if (!config_.tie_word_embeddings) {
      TROUPE_TRY(output,
                 vocabulary_embedding::load(load.reader, config_, where_, "lm_head.weight"));
      output_ = std::move(output);
    }
    return {};
  }

  [[nodiscard]] const model_config& config() const noexcept override { return config_; }
  [[nodiscard]] placement where() const noexcept override { return where_; }
  [[nodiscard]] const rope& rotary() const noexcept override { return rope_; }

  [[nodiscard]] base::result<void> forward(step_context& context, const step_batch& batch,
                                           const kernels::tensor_view& hidden) override {
    const auto tokens = static_cast<std::int64_t>(batch.token_ids.size());
    const kernels::arena::scope scope(context.arena);
    const kernels::tensor_view x =
        context.arena.take(kernels::dtype::float32, tokens, config_.hidden_size);
    const std::span<std::byte> x_bytes(x.data.address,
                                       static_cast<std::size_t>(tokens * config_.hidden_size) * 4);
    if (where_.first_stage()) {
      TROUPE_TRY_VOID(embedding_->embed(context, batch.token_ids, x));
    } else {
      TROUPE_TRY_VOID(context.pp.receive(context.epoch, where_.pp_rank - 1, x_bytes));
    }
    TROUPE_TRY_VOID(run_layers(context, batch, x));
    if (!where_.last_stage()) {
      context.queue.hand_over();
      return context.pp.send(context.epoch, where_.pp_rank + 1, x_bytes);
    }
    const auto rows = static_cast<std::int64_t>(batch.logits_rows.size());
    const kernels::tensor_view wanted =
        context.arena.take(kernels::dtype::float32, rows, config_.hidden_size);
    context.ops.gather_rows(context.queue, {x, batch.logits_rows, wanted});
    context.ops.rms_norm(context.queue,
                         {wanted, norm_, static_cast<float>(config_.rms_norm_eps), hidden});
    return {};
  }

  void logits(step_context& context, const kernels::tensor_view& hidden,
              const kernels::tensor_view& logits) override {
    (output_ ? *output_ : *embedding_).project(context, hidden, logits);
  }

  [[nodiscard]] std::size_t arena_bytes(std::int64_t tokens) const override {
    using kernels::arena;
    using kernels::dtype;
    const std::int64_t hidden = config_.hidden_size;
    const std::size_t frame = 2 * arena::bytes_of(dtype::float32, tokens, hidden);
    const std::size_t layer =
        arena::bytes_of(type_, tokens, hidden) + arena::bytes_of(dtype::float32, tokens, hidden);
    const std::size_t block = std::max(attention_block::arena_bytes(config_, where_, type_, tokens),
                                       gated_mlp::arena_bytes(config_, where_, type_, tokens));
    const std::size_t embed = 2 * arena::bytes_of(dtype::float32, tokens, hidden);
    return frame + std::max(layer + block, embed);
  }

 private:
  [[nodiscard]] base::result<void> run_layers(step_context& context, const step_batch& batch,
                                              const kernels::tensor_view& x) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const layer_inputs inputs{{batch.cos, batch.sin},
                                context.caches[i],
                                batch.groups[group_of_layer_[first_layer_ + i]]};
      TROUPE_TRY_VOID(layers_[i]->forward(context, inputs, x));
      if (context.vitals != nullptr) context.vitals->tick();
    }
    return {};
  }

  model_config config_;
  placement where_;
  kernels::dtype type_;
  rope rope_;
  std::optional<vocabulary_embedding> embedding_;
  std::optional<vocabulary_embedding> output_;  // nullopt: tied to embedding_
  std::vector<std::unique_ptr<decoder_layer>> layers_;
  std::vector<std::size_t> group_of_layer_;
  std::size_t first_layer_ = 0;
  std::vector<float> norm_;
};

}  // namespace

base::result<std::unique_ptr<model>> load_decoder(const model_load& load,
                                                  load_layer_function load_layer) {
  if (!load.canonical_run) TROUPE_TRY_VOID(check_placement(load.config, load.where));
  TROUPE_TRY(rotate, rope::make(load.config));
  auto made = std::make_unique<decoder>(load, std::move(rotate));
  TROUPE_TRY_VOID(made->load(load, load_layer));
  return made;
}

std::vector<kv_spec> kv_groups(const model_config& config) {
  std::vector<kv_spec> groups;
  for (const auto& window : config.sliding_window) {
    const kv_spec spec = window ? kv_spec{kv_kind::sliding, *window} : kv_spec{};
    if (std::find(groups.begin(), groups.end(), spec) == groups.end()) groups.push_back(spec);
  }
  return groups;
}

std::vector<std::size_t> kv_group_of_layers(const model_config& config) {
  const std::vector<kv_spec> groups = kv_groups(config);
  std::vector<std::size_t> group_of;
  for (const auto& window : config.sliding_window) {
    const kv_spec spec = window ? kv_spec{kv_kind::sliding, *window} : kv_spec{};
    const auto found = std::find(groups.begin(), groups.end(), spec);
    group_of.push_back(static_cast<std::size_t>(found - groups.begin()));
  }
  return group_of;
}

}  // namespace troupe::models
