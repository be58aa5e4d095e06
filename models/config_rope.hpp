// The rotary fields of config.json, in the old and the new spelling. Internal to
// models/config*.cpp.
#pragma once

#include "base/error.hpp"
#include "models/config.hpp"
#include "models/config_fields.hpp"

namespace troupe::models {

// Fills config.rope; head_dim and max_position_embeddings are already there.
// Errors: invalid_argument (a field's value), unimplemented (rope types this build does not have).
// Source: transformers modeling_rope_utils.py, RotaryEmbeddingConfigMixin.
[[nodiscard]] base::result<void> read_rope(const config_fields& top, model_config& config);

}  // namespace troupe::models
