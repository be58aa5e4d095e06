// HMAC-SHA-256 (RFC 2104): a digest that only who has the key can make.
#pragma once

#include <string_view>

#include "base/sha256.hpp"

namespace troupe::base {

[[nodiscard]] digest hmac_sha256(const digest& key, std::string_view text);

}  // namespace troupe::base
