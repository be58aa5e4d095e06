// Base64 of RFC 4648, section 4, as JSON and YAML carry bytes.
#pragma once

#include <string>
#include <string_view>

#include "base/error.hpp"

namespace troupe::base {

// Line feeds and spaces are skipped. Errors: invalid_argument (another character, a wrong length).
[[nodiscard]] result<std::string> from_base64(std::string_view text);

}  // namespace troupe::base
