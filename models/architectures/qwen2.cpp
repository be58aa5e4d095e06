// Qwen2ForCausalLM: biases on q, k and v (models/config sets qkv_bias), windows on some layers.
// Source: transformers, models/qwen2/modeling_qwen2.py.
#include "models/architectures/architectures.hpp"
#include "models/blocks/prenorm_layer.hpp"

namespace troupe::models {
namespace {

base::result<std::unique_ptr<decoder_layer>> load_layer(const layer_load& load) {
  const auto layer = static_cast<std::size_t>(load.index);
  return load_prenorm_layer(load, {.qk_norm = false, .window = load.config.sliding_window[layer]});
}

}  // namespace

base::result<std::unique_ptr<model>> load_qwen2(const model_load& load) {
  return load_decoder(load, load_layer);
}

}  // namespace troupe::models
