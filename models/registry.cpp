#include "models/registry.hpp"

#include <array>
#include <string>

#include "models/architectures/architectures.hpp"

namespace troupe::models {

std::span<const architecture> architectures() noexcept {
  static constexpr std::array<architecture, 4> known{{
      {"LlamaForCausalLM", load_llama},
      {"MistralForCausalLM", load_mistral},
      {"Qwen2ForCausalLM", load_qwen2},
      {"Qwen3ForCausalLM", load_qwen3},
  }};
  return known;
}

base::result<std::unique_ptr<model>> load(const model_load& load) {
  load.reader.take_float8(load.config.quantization.has_value());
  std::string names;
  for (const architecture& candidate : architectures()) {
    if (candidate.name == load.config.architecture) return candidate.load(load);
    names += (names.empty() ? "" : ", ") + std::string(candidate.name);
  }
  return base::fail(
      base::error_code::unimplemented, "models",
      "config.json: architecture " + load.config.architecture + " is not one of " + names);
}

}  // namespace troupe::models
