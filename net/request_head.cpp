#include "net/request_head.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "net/http_syntax.hpp"

namespace troupe::net {

base::result<std::string> format_request_head(const request_head& head) {
  constexpr std::array<std::string_view, 5> made_here = {"host", "content-length", "connection",
                                                         "transfer-encoding", "expect"};
  const auto bad = [](std::string what) {
    return base::fail(base::error_code::invalid_argument, "net", std::move(what));
  };
  if (!is_token(head.method)) return bad("the method is not a token");
  std::string out =
      fmt::format("{} {} HTTP/1.1\r\nhost: {}\r\n", head.method, head.target, head.authority);
  if (head.close) out += "connection: close\r\n";
  if (head.body_bytes) {
    fmt::format_to(std::back_inserter(out), "content-length: {}\r\n", *head.body_bytes);
  }
  for (const auto& [name, value] : *head.headers) {
    const std::string field = lower(name);
    if (!is_token(field) || !is_field_value(value)) {
      return bad(
          fmt::format("header '{}' has a character it cannot have", is_token(field) ? field : "?"));
    }
    if (std::ranges::find(made_here, field) != made_here.end()) continue;
    fmt::format_to(std::back_inserter(out), "{}: {}\r\n", field, value);
  }
  return out + "\r\n";
}

}  // namespace troupe::net
