// The sizes of a gang under LeaderWorkerSet where no flag gives them: of its pods, and of the
// manifest that makes them.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "cli/model_flags.hpp"

namespace troupe::cli {

// Sets tensor and pipeline parallel size unless `parser` has either. Returns why they are so, as
// one clause; nothing where the flags say. Errors: those of lws::default_layout.
[[nodiscard]] base::result<std::optional<std::string>> choose_group_sizes(
    const CLI::App& parser, int pods, std::optional<int> subgroup_size, model_flags& flags);

}  // namespace troupe::cli
