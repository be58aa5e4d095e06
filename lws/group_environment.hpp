// What LeaderWorkerSet says of a group in the environment of each of its containers, and the sizes
// that follow from it.
//
//   TROUPE_TRY(group, lws::read_group_environment(std::getenv));
//   if (group.size) TROUPE_TRY(layout, lws::default_layout(*group.size, group.subgroup_size));
//
// Source: https://lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables/
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace troupe::lws {

// LWS's own come first in a container's environment; nobody else may set them.
inline constexpr const char* leader_address_variable = "LWS_LEADER_ADDRESS";
inline constexpr const char* group_size_variable = "LWS_GROUP_SIZE";
inline constexpr const char* worker_index_variable = "LWS_WORKER_INDEX";
// Ours, from the pod's annotation leaderworkerset.sigs.k8s.io/subgroup-size by the downward API.
inline constexpr const char* subgroup_size_variable = "TROUPE_LWS_SUBGROUP_SIZE";

// Whether LWS sets it in every pod of a group.
[[nodiscard]] bool is_set_by_lws(std::string_view variable) noexcept;

// LWS has no limit of its own; a gang has at most so many nodes.
inline constexpr int group_size_max = 64;

struct group_environment {
  std::optional<std::string> leader_address;  // <leader>.<subdomain>.<namespace>
  std::optional<int> size;                    // pods, the leader among them
  std::optional<int> worker_index;            // 0 is the leader
  std::optional<int> subgroup_size;           // pods; empty without subgroups
};

// Like std::getenv: null when there is no such variable.
using variable_reader = std::function<const char*(const char* name)>;

// Errors: invalid_argument (no whole number, out of range, an index outside the group).
[[nodiscard]] base::result<group_environment> read_group_environment(const variable_reader& read);

struct layout {
  int tensor_parallel_size = 1;
  int pipeline_parallel_size = 1;
  std::string why;  // one clause, for the log
};

// One rank a pod. Subgroups become the stages of the pipeline: LWS keeps the pods of a subgroup
// close together, and a stage's ranks exchange most. Without them all pods share every layer where
// the canonical grid has a cut for so many (1, 2, 4, 8), else each pod is a stage.
// Errors: invalid_argument (subgroups that are no such cut).
[[nodiscard]] base::result<layout> default_layout(int group_size, std::optional<int> subgroup_size);

}  // namespace troupe::lws
