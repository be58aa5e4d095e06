#include "models/blocks/prenorm_layer.hpp"

#include <string>
#include <utility>
#include <vector>

#include "models/blocks/gated_mlp.hpp"

namespace troupe::models {
namespace {

class prenorm_layer final : public decoder_layer {
 public:
  prenorm_layer(const layer_load& load, attention_block attention, gated_mlp mlp,
                std::vector<float> input_norm, std::vector<float> post_attention_norm,
                kernels::dtype type)
      : type_(type),
        epsilon_(static_cast<float>(load.config.rms_norm_eps)),
        attention_(std::move(attention)),
        mlp_(std::move(mlp)),
        input_norm_(std::move(input_norm)),
        post_attention_norm_(std::move(post_attention_norm)) {}

  [[nodiscard]] base::result<void> forward(step_context& context, const layer_inputs& inputs,
                                           const kernels::tensor_view& x) const override {
    const kernels::arena::scope scope(context.arena);
    const auto normed = context.arena.take(type_, x.rows(), x.columns());
    const auto partial = context.arena.take(kernels::dtype::float32, x.rows(), x.columns());

    context.ops.rms_norm(context.queue, {x, input_norm_, epsilon_, normed});
    attention_.forward(context, normed, inputs.rotate, inputs.cache, inputs.batch, partial);
    TROUPE_TRY_VOID(add_over_ranks(context, partial, attention_.output_bias(), x));

    context.ops.rms_norm(context.queue, {x, post_attention_norm_, epsilon_, normed});
    mlp_.forward(context, normed, partial);
    return add_over_ranks(context, partial, mlp_.output_bias(), x);
  }

 private:
  // x += sum over ranks of partial (+ bias). The sum has the canonical tree's bits on every rank.
  [[nodiscard]] static base::result<void> add_over_ranks(step_context& context,
                                                         const kernels::tensor_view& partial,
                                                         std::span<const float> bias,
                                                         const kernels::tensor_view& x) {
    context.queue.hand_over();
    TROUPE_TRY_VOID(context.tp.all_reduce_sum(
        context.epoch,
        {partial.row<float>(0), static_cast<std::size_t>(partial.rows() * partial.columns())}));
    context.ops.add(context.queue, {x, partial, bias});
    return {};
  }

  kernels::dtype type_;
  float epsilon_;
  attention_block attention_;
  gated_mlp mlp_;
  std::vector<float> input_norm_;
  std::vector<float> post_attention_norm_;
};

}  // namespace

base::result<std::unique_ptr<decoder_layer>> load_prenorm_layer(const layer_load& load,
                                                                attention_options options) {
  const std::string prefix = "model.layers." + std::to_string(load.index) + ".";
  const range whole{0, load.config.hidden_size};
  const auto norm = [&](const std::string& name) {
    return load.reader.vector({{prefix + name + ".weight", whole, load.config.hidden_size}});
  };
  TROUPE_TRY(input_norm, norm("input_layernorm"));
  TROUPE_TRY(attention, attention_block::load(load.reader, load.config, load.where,
                                              prefix + "self_attn.", options));
  TROUPE_TRY(post_attention_norm, norm("post_attention_layernorm"));
  TROUPE_TRY(mlp, gated_mlp::load(load.reader, load.config, load.where, prefix + "mlp."));
  return std::make_unique<prenorm_layer>(load, std::move(attention), std::move(mlp),
                                         std::move(input_norm), std::move(post_attention_norm),
                                         load.reader.type());
}

}  // namespace troupe::models
