#include "cli/group_sizes.hpp"

#include <utility>

#include "lws/group_environment.hpp"

namespace troupe::cli {

base::result<std::optional<std::string>> choose_group_sizes(const CLI::App& parser, int pods,
                                                            std::optional<int> subgroup_size,
                                                            model_flags& flags) {
  if (parser.count("--tensor-parallel-size") > 0 || parser.count("--pipeline-parallel-size") > 0) {
    return std::nullopt;
  }
  TROUPE_TRY(layout, lws::default_layout(pods, subgroup_size));
  flags.tensor_parallel_size = layout.tensor_parallel_size;
  flags.pipeline_parallel_size = layout.pipeline_parallel_size;
  return std::optional(std::move(layout.why));
}

}  // namespace troupe::cli
