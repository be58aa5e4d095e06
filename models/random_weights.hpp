// Weights for a model of which only config.json is there: random, so that speed can be measured on
// any shape without a download.
//
//   TROUPE_TRY(weights, models::random_weights(config));   // --load-format dummy
#pragma once

#include <span>

#include "models/checkpoint.hpp"
#include "models/config.hpp"

namespace troupe::models {

// A checkpoint with every tensor that the architecture asks for: bfloat16, but for matrices that
// config.quantization converts.
// Errors: those of models::load but for the files.
[[nodiscard]] base::result<checkpoint> random_weights(const model_config& config);

// Bytes [offset, offset + out.size()) of such a tensor: vectors are ones, so that norms stay norms;
// matrices uniform with the usual initial deviation of 0.02, float8_e4m3 ones as codes over their
// whole range, with float32 scales about the same. An element depends on the tensor's name and its
// place alone. Shape: offset and size are whole elements.
void fill_random_weights(const tensor_info& tensor, std::uint64_t offset, std::span<std::byte> out);

}  // namespace troupe::models
