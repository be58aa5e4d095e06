#include "models/demo/demo_folder.hpp"

#include <array>
#include <filesystem>

// linked_files.S
#define TROUPE_DEMO_FILE(name)                             \
  extern "C" const std::byte troupe_demo_##name##_begin[]; \
  extern "C" const std::byte troupe_demo_##name##_end[]
TROUPE_DEMO_FILE(config);
TROUPE_DEMO_FILE(generation_config);
TROUPE_DEMO_FILE(weights);
TROUPE_DEMO_FILE(tokenizer);
TROUPE_DEMO_FILE(tokenizer_config);
#undef TROUPE_DEMO_FILE

namespace troupe::models {
namespace {

std::span<const std::byte> between(const std::byte* begin, const std::byte* end) {
  return {begin, static_cast<std::size_t>(end - begin)};
}

}  // namespace

model_folder demo_folder() {
  static const std::array<linked_file, 5> files = {{
      {"config.json", between(troupe_demo_config_begin, troupe_demo_config_end)},
      {"generation_config.json",
       between(troupe_demo_generation_config_begin, troupe_demo_generation_config_end)},
      {"model.safetensors", between(troupe_demo_weights_begin, troupe_demo_weights_end)},
      {"tokenizer.json", between(troupe_demo_tokenizer_begin, troupe_demo_tokenizer_end)},
      {"tokenizer_config.json",
       between(troupe_demo_tokenizer_config_begin, troupe_demo_tokenizer_config_end)},
  }};
  return {"demo (in the program)", files};
}

model_folder find_model(std::string_view model) {
  if (model == demo_name) return demo_folder();
  return std::filesystem::path(model);
}

}  // namespace troupe::models
