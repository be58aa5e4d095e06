// The frame of a decoder-only transformer: embedding, layers, final norm, output embedding, and the
// hand-over between pipeline stages. What a layer does comes from the architecture.
//
// An architecture gives a `load_layer` function; everything that is the same for all of them (rows
// of the embedding coming from their owner, rotation angles, where stages meet) is here.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "models/blocks/attention_block.hpp"
#include "models/model.hpp"
#include "models/rope.hpp"
#include "models/weight_reader.hpp"

namespace troupe::models {

// What a layer gets beside the residual stream.
struct layer_inputs {
  rotation rotate;
  const kernels::kv_view& cache;
  const kv_group_batch& batch;
};

class decoder_layer {
 public:
  decoder_layer() = default;
  decoder_layer(const decoder_layer&) = delete;
  decoder_layer& operator=(const decoder_layer&) = delete;
  virtual ~decoder_layer() = default;

  // Updates the residual stream in place. Shape: x float32 [tokens][hidden_size], equal on all
  // tensor-parallel ranks before and after. Errors: those of the collectives.
  [[nodiscard]] virtual base::result<void> forward(step_context& context,
                                                   const layer_inputs& inputs,
                                                   const kernels::tensor_view& x) const = 0;
};

struct layer_load {
  weight_reader& reader;
  const model_config& config;
  placement where;
  std::int64_t index;  // of the whole model
};

using load_layer_function =
    base::result<std::unique_ptr<decoder_layer>> (*)(const layer_load& load);

struct model_load {
  weight_reader& reader;
  const model_config& config;
  placement where;
  // `where` is a canonical run (tp_size 8) of whatever model, perhaps an empty one: only to plan.
  bool canonical_run = false;
};

// Loads this rank's share in the Hugging Face names of decoder models (model.embed_tokens.weight,
// model.layers.N., model.norm.weight, lm_head.weight).
// Errors: those of the reader, of check_placement and of rope::make.
[[nodiscard]] base::result<std::unique_ptr<model>> load_decoder(const model_load& load,
                                                                load_layer_function load_layer);

}  // namespace troupe::models
