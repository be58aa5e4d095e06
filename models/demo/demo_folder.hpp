// The embedded demo model: a Hugging Face folder of a few million parameters inside the program.
//
// It answers questions about gangs, LeaderWorkerSet and this runtime; models/demo/README.md tells
// how it was trained. Its files are read as any model's, with the same checks.
//
//   const models::model_folder folder = models::find_model(flags.model);
//   TROUPE_TRY(config, models::read_config(folder));
#pragma once

#include <string_view>

#include "models/model_folder.hpp"

namespace troupe::models {

// The word for MODEL that means the embedded model; a folder of that name is ./demo.
inline constexpr std::string_view demo_name = "demo";

// Lifetime: the program's.
[[nodiscard]] model_folder demo_folder();

// What a user means by MODEL: the embedded model, or a folder on disk.
[[nodiscard]] model_folder find_model(std::string_view model);

}  // namespace troupe::models
