// A new file that its owner alone may read, from its first byte on: keys.
#pragma once

#include <filesystem>
#include <string>

#include "base/error.hpp"

namespace troupe::cli {

// Errors: failed_precondition (it is there already, or its folder is not).
[[nodiscard]] base::result<void> write_owner_file(const std::filesystem::path& path,
                                                  const std::string& text);

}  // namespace troupe::cli
