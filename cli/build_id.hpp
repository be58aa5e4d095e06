// Which build this is: ranks of different builds do not form a gang.
#pragma once

#include <string>

namespace troupe::cli {

// Version and a digest of this program's own file, e.g. "0.1.0+3f9a1c0b2d4e5f60".
[[nodiscard]] std::string build_id();

}  // namespace troupe::cli
