// The sliding-window fields of config.json. Internal to models/config*.cpp.
#pragma once

#include "base/error.hpp"
#include "models/config.hpp"
#include "models/config_fields.hpp"

namespace troupe::models {

// Fills config.sliding_window, one entry a layer; model_type and num_hidden_layers are already
// there. Errors: invalid_argument (a field's value), unimplemented (another kind of layer). Source:
// transformers configuration_mistral.py, configuration_qwen2.py, configuration_qwen3.py.
[[nodiscard]] base::result<void> read_sliding_window(const config_fields& top,
                                                     model_config& config);

}  // namespace troupe::models
