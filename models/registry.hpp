// From the name in config.json to the code of the architecture.
//
// A new architecture is one file in models/architectures/, one declaration beside the others, and
// one line in registry.cpp; engine and kernels stay as they are.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "models/decoder.hpp"

namespace troupe::models {

struct architecture {
  std::string_view name;  // as in config.json, e.g. "Qwen3ForCausalLM"
  base::result<std::unique_ptr<model>> (*load)(const model_load& load);
};

[[nodiscard]] std::span<const architecture> architectures() noexcept;

// Errors: unimplemented for a name that is not listed; those of the architecture's load.
[[nodiscard]] base::result<std::unique_ptr<model>> load(const model_load& load);

}  // namespace troupe::models
