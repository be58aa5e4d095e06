// Qwen3ForCausalLM: query and key heads are normalised before the rotation.
// Source: transformers, models/qwen3/modeling_qwen3.py.
#include "models/architectures/architectures.hpp"
#include "models/blocks/prenorm_layer.hpp"

namespace troupe::models {
namespace {

base::result<std::unique_ptr<decoder_layer>> load_layer(const layer_load& load) {
  const auto layer = static_cast<std::size_t>(load.index);
  return load_prenorm_layer(load, {.qk_norm = true, .window = load.config.sliding_window[layer]});
}

}  // namespace

base::result<std::unique_ptr<model>> load_qwen3(const model_load& load) {
  return load_decoder(load, load_layer);
}

}  // namespace troupe::models
