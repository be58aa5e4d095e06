// One function an architecture, each in its own file; models/registry.cpp lists them.
#pragma once

#include <memory>

#include "models/decoder.hpp"

namespace troupe::models {

// Errors of each: those of load_decoder.
[[nodiscard]] base::result<std::unique_ptr<model>> load_llama(const model_load& load);
[[nodiscard]] base::result<std::unique_ptr<model>> load_mistral(const model_load& load);
[[nodiscard]] base::result<std::unique_ptr<model>> load_qwen2(const model_load& load);
[[nodiscard]] base::result<std::unique_ptr<model>> load_qwen3(const model_load& load);

}  // namespace troupe::models
