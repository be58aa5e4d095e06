// May this rank join? Everything that must be equal is compared, and a refusal is one line that
// says which rank differs in what, and how to mend it.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "schemas/control_message.hpp"

namespace troupe::actors {

// The leader's own description, and how many ranks there are.
struct join_rules {
  schemas::join_request leader;
  int world_size = 1;
};

// Empty: it may. Does not look at instruction paths.
[[nodiscard]] std::optional<std::string> why_refused(const schemas::join_request& asks,
                                                     const join_rules& rules);

// The paths that both have, in the order of the first.
[[nodiscard]] std::vector<std::string> common_paths(std::span<const std::string> ours,
                                                    std::span<const std::string> theirs);

// The line for a rank that shares none of `paths` (the gang's).
[[nodiscard]] std::string no_common_path(const schemas::join_request& asks,
                                         std::span<const std::string> paths);

// "rank 1 (node b)"; names from the wire are cut and made printable.
[[nodiscard]] std::string name_of(const schemas::join_request& asks);
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace troupe::actors
