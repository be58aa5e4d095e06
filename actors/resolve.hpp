// Name resolution under a deadline. Internal to actors/.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace troupe::actors {

// Numeric addresses of `host`. The system's resolver cannot be stopped: a lookup that takes longer
// is left on a thread of its own, and who asks for the same name again waits for that one.
// Errors: deadline_exceeded; those of base::resolve.
[[nodiscard]] base::result<std::vector<std::string>> resolve_within(
    const std::string& host, std::chrono::milliseconds patience);

}  // namespace troupe::actors
