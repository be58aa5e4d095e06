// Digests by which ranks know that they have the same model.
//
// The description is everything but the weights' values: config.json, the tokenizer's files, and
// name, type and shape of every tensor. It is cheap, so each rank compares it before it loads.
#pragma once

#include "base/error.hpp"
#include "base/sha256.hpp"
#include "models/checkpoint.hpp"

namespace troupe::models {

// Errors: not_found, data_loss (a file that cannot be read), resource_exhausted (larger than
// 256 MiB).
[[nodiscard]] base::result<base::digest> description_digest(const model_folder& folder,
                                                            const checkpoint& files);

}  // namespace troupe::models
