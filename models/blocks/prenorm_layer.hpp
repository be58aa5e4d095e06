// The decoder layer of the Llama family: x += attention(norm(x)); x += mlp(norm(x)).
//
// Shared by every architecture whose layer has this form; one that differs writes a decoder_layer
// of its own, for which prenorm_layer.cpp is the example to start from.
#pragma once

#include <memory>

#include "models/blocks/attention_block.hpp"
#include "models/decoder.hpp"

namespace troupe::models {

// Errors: those of the reader.
[[nodiscard]] base::result<std::unique_ptr<decoder_layer>> load_prenorm_layer(
    const layer_load& load, attention_options options);

}  // namespace troupe::models
