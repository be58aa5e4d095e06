#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "net/http_client.hpp"
#include "net/http_syntax.hpp"

namespace troupe::net {
namespace {

tl::unexpected<base::error> bad_url(std::string_view url, std::string_view why) {
  std::string shown(url.substr(0, 200));
  std::ranges::replace_if(
      shown, [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return base::fail(base::error_code::invalid_argument, "net",
                    fmt::format("'{}' {}: give http[s]://host[:port]/path", shown, why));
}

}  // namespace

std::string_view http_reply::header(std::string_view name) const noexcept {
  return find_field(headers, name);
}

base::result<http_url> parse_http_url(std::string_view url) {
  const bool tls = equal_ignoring_case(url.substr(0, 8), "https://");
  const std::string_view scheme = tls ? "https://" : "http://";
  if (!equal_ignoring_case(url.substr(0, scheme.size()), scheme)) {
    return bad_url(url, "is no http:// or https:// URL");
  }
  const std::string_view rest = url.substr(scheme.size(), url.find('#') - scheme.size());
  const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
  http_url parts{.tls = tls};
  parts.authority = rest.substr(0, end);
  parts.target = rest.substr(end);
  if (parts.target.empty() || parts.target[0] != '/') parts.target.insert(0, 1, '/');
  if (!is_authority(parts.authority) || !is_target(parts.target)) {
    return bad_url(url, "has a character that a URL cannot have");
  }
  const std::string_view authority = parts.authority;
  const std::size_t bracket = authority.rfind(']');
  const std::size_t from = bracket == std::string_view::npos ? 0 : bracket;
  const std::size_t colon = std::min(authority.find(':', from), authority.size());
  std::string_view host = authority.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host.empty() || host.find_first_of("[]") != std::string_view::npos) {
    return bad_url(url, "names no host");
  }
  parts.host = host;
  parts.port = colon == authority.size() ? (tls ? "443" : "80") : authority.substr(colon + 1);
  const std::optional<std::uint64_t> port = parse_decimal(parts.port);
  if (!port || *port == 0 || *port > 65535) return bad_url(url, "has no valid port");
  return parts;
}

}  // namespace troupe::net
