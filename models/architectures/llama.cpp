// LlamaForCausalLM: Llama 2 and 3 and the many models in their form.
// Source: transformers, models/llama/modeling_llama.py.
#include "models/architectures/architectures.hpp"
#include "models/blocks/prenorm_layer.hpp"

namespace troupe::models {
namespace {

// attention_bias and mlp_bias of config.json switch the biases of all four projections and of the
// MLP; there is no window.
base::result<std::unique_ptr<decoder_layer>> load_layer(const layer_load& load) {
  return load_prenorm_layer(load, {.qk_norm = false, .window = std::nullopt});
}

}  // namespace

base::result<std::unique_ptr<model>> load_llama(const model_load& load) {
  return load_decoder(load, load_layer);
}

}  // namespace troupe::models
