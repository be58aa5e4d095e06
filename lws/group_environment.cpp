#include "lws/group_environment.hpp"

#include <spdlog/fmt/fmt.h>

#include <charconv>
#include <cstring>

namespace troupe::lws {
namespace {

struct bounds {
  int low = 0;
  int high = 0;
};

base::result<std::optional<int>> read_number(const variable_reader& read, const char* name,
                                             bounds allowed) {
  const char* const text = read(name);
  // The downward API gives an empty text for an annotation that is not there.
  if (text == nullptr || *text == '\0') return std::optional<int>();
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, problem] = std::from_chars(text, end, value);
  if (problem == std::errc() && stop == end && value >= allowed.low && value <= allowed.high) {
    return std::optional(value);
  }
  return base::fail(base::error_code::invalid_argument, "lws",
                    fmt::format("{} is \"{:.40}\", wanted: a number from {} to {}", name, text,
                                allowed.low, allowed.high));
}

// models/grid: eight runs, cut for so many ranks.
constexpr bool has_cut(int ranks) { return ranks == 1 || ranks == 2 || ranks == 4 || ranks == 8; }

}  // namespace

bool is_set_by_lws(std::string_view variable) noexcept {
  return variable == leader_address_variable || variable == group_size_variable ||
         variable == worker_index_variable;
}

base::result<group_environment> read_group_environment(const variable_reader& read) {
  group_environment group;
  TROUPE_TRY(size, read_number(read, group_size_variable, {.low = 1, .high = group_size_max}));
  group.size = size;
  const int last = size.value_or(group_size_max) - 1;
  TROUPE_TRY(index, read_number(read, worker_index_variable, {.low = 0, .high = last}));
  group.worker_index = index;
  TROUPE_TRY(subgroup, read_number(read, subgroup_size_variable, {.low = 1, .high = last + 1}));
  group.subgroup_size = subgroup;
  const char* const leader = read(leader_address_variable);
  if (leader != nullptr && *leader != '\0') group.leader_address = leader;
  return group;
}

base::result<layout> default_layout(int group_size, std::optional<int> subgroup_size) {
  if (subgroup_size) {
    const int pods = *subgroup_size;
    if (group_size % pods != 0 || !has_cut(pods)) {
      return base::fail(
          base::error_code::invalid_argument, "lws",
          fmt::format(
              "a group of {} pods in subgroups of {} has no default layout (a subgroup is a "
              "pipeline stage of 1, 2, 4 or 8 ranks, and all are alike): give "
              "--tensor-parallel-size and --pipeline-parallel-size, or another "
              "subGroupPolicy.subGroupSize",
              group_size, pods));
    }
    return layout{.tensor_parallel_size = pods,
                  .pipeline_parallel_size = group_size / pods,
                  .why = "one rank a pod, each subgroup is a pipeline stage"};
  }
  if (has_cut(group_size)) {
    return layout{.tensor_parallel_size = group_size,
                  .pipeline_parallel_size = 1,
                  .why = "one rank a pod, all share every layer"};
  }
  return layout{.tensor_parallel_size = 1,
                .pipeline_parallel_size = group_size,
                .why = fmt::format("one rank a pod, each a pipeline stage, since layers are shared "
                                   "by 1, 2, 4 or 8 ranks, not by {}",
                                   group_size)};
}

}  // namespace troupe::lws
