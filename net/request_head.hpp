// How a client writes the head of a request.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "net/http_field.hpp"

namespace troupe::net {

struct request_head {
  std::string_view method;
  std::string_view target;
  std::string_view authority;  // the Host field
  const std::vector<header_field>* headers = nullptr;
  std::optional<std::size_t> body_bytes = {};  // none: a request without a body
  bool close = false;
};

// Request line and fields with the empty line. Host, content-length, connection, transfer-encoding
// and expect are made here: those of the caller are left out.
// Errors: invalid_argument (a method, a field's name or value with a character it cannot have).
[[nodiscard]] base::result<std::string> format_request_head(const request_head& head);

}  // namespace troupe::net
