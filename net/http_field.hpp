// A header field of an HTTP message, and how one is found: what server and client have in common.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe::net {

using header_field = std::pair<std::string, std::string>;  // names in lower case

// The value of the first field of that name (lower case); empty when there is none.
// Lifetime: a view into `fields`.
[[nodiscard]] std::string_view find_field(const std::vector<header_field>& fields,
                                          std::string_view name) noexcept;

}  // namespace troupe::net
