// The quantization_config of config.json. Internal to models/config*.cpp.
#pragma once

#include "base/error.hpp"
#include "models/config.hpp"
#include "models/config_fields.hpp"

namespace troupe::models {

// Fills config.quantization where the file has the field. Errors: unimplemented (another method,
// format, block size or activation scheme: what it is and what is taken), invalid_argument (a
// field's type). Source: transformers utils/quantization_config.py, FineGrainedFP8Config.
[[nodiscard]] base::result<void> read_quantization(const config_fields& top, model_config& config);

}  // namespace troupe::models
