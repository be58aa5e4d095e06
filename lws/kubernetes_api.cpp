#include "lws/kubernetes_api.hpp"

#include <spdlog/fmt/fmt.h>

#include <cctype>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

namespace troupe::lws {
namespace {

using base::error_code;

constexpr std::size_t token_bytes_max = std::size_t{64} << 10;
constexpr std::size_t line_bytes_max = std::size_t{4} << 20;  // one object; etcd takes 1.5 MiB
constexpr std::size_t list_bytes_max = std::size_t{256} << 20;

base::result<std::string> read_small_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(token_bytes_max, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
    text.pop_back();
  }
  if (text.empty()) {
    return base::fail(error_code::failed_precondition, "lws", "cannot read " + path);
  }
  return text;
}

// What an API server says of a refusal: a Status object.
base::error refusal(int status, const std::string& server, const std::string& body) {
  const auto told = nlohmann::json::parse(body, nullptr, false);
  std::string message = body.substr(0, 200);
  if (told.is_object() && told.contains("message") && told["message"].is_string()) {
    message = told["message"].get<std::string>();
  }
  const error_code code = status == 401   ? error_code::unauthenticated
                          : status == 403 ? error_code::permission_denied
                          : status == 404 ? error_code::not_found
                          : status == 410 ? error_code::out_of_range
                                          : error_code::unavailable;
  return {code, fmt::format("{} answers {}: {}", server, status, message), "lws",
          code == error_code::unavailable};
}

}  // namespace

base::result<kubernetes_access> kubernetes_api::access_of_pod(
    const std::function<const char*(const char*)>& environment, const std::string& folder) {
  const char* const host = environment("KUBERNETES_SERVICE_HOST");
  const char* const port = environment("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr) {
    return base::fail(error_code::failed_precondition, "lws",
                      "KUBERNETES_SERVICE_HOST and _PORT are not set: this is no pod of a cluster; "
                      "say where its API server is");
  }
  kubernetes_access access{.token_file = folder + "/token", .authorities_file = folder + "/ca.crt"};
  const bool colons = std::string_view(host).find(':') != std::string_view::npos;
  access.server =
      fmt::format(fmt::runtime(colons ? "https://[{}]:{}" : "https://{}:{}"), host, port);
  TROUPE_TRY(name, read_small_file(folder + "/namespace"));
  access.namespace_name = std::move(name);
  TROUPE_TRY_VOID(read_small_file(access.token_file));
  return access;
}

base::result<net::http_call> kubernetes_api::call_of(const std::string& path,
                                                     std::chrono::milliseconds patience,
                                                     const std::stop_token& stop) const {
  net::http_call call{.url = access_.server + path,
                      .headers = {{"accept", "application/json"}},
                      .deadline = patience,
                      .body_bytes_max = list_bytes_max,
                      .authorities_file = access_.authorities_file,
                      .stop = stop};
  if (!access_.token_file.empty()) {
    TROUPE_TRY(token, read_small_file(access_.token_file));
    call.headers.emplace_back("authorization", "Bearer " + token);
  }
  return call;
}

base::result<std::string> kubernetes_api::get(const std::string& path,
                                              std::chrono::milliseconds patience,
                                              const std::stop_token& stop) const {
  TROUPE_TRY(call, call_of(path, patience, stop));
  TROUPE_TRY(reply, net::http_fetch(call));
  if (reply.status != 200) {
    return tl::unexpected(refusal(reply.status, access_.server, reply.body));
  }
  return std::move(reply.body);
}

base::result<void> kubernetes_api::watch(const std::string& path,
                                         std::chrono::milliseconds patience,
                                         const std::function<bool(std::string_view)>& line,
                                         const std::stop_token& stop) const {
  TROUPE_TRY(call, call_of(path, patience, stop));
  std::string held;
  int status = 0;
  const auto on_piece = [&](std::string_view bytes) {
    held += bytes;
    if (status != 200) return held.size() < line_bytes_max;
    std::size_t from = 0;
    for (std::size_t end = held.find('\n'); end != std::string::npos; end = held.find('\n', from)) {
      if (!line(std::string_view(held).substr(from, end - from))) return false;
      from = end + 1;
    }
    held.erase(0, from);
    return held.size() < line_bytes_max;
  };
  const auto ended = net::http_stream(call, {.head =
                                                 [&](const net::http_reply& head) {
                                                   status = head.status;
                                                   return true;
                                                 },
                                             .piece = on_piece});
  if (status != 0 && status != 200) {
    return tl::unexpected(refusal(status, access_.server, held));
  }
  if (!ended && ended.error().code != error_code::cancelled) return tl::unexpected(ended.error());
  return {};
}

std::string query_value(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' ||
        c == '~') {
      out += c;
    } else {
      fmt::format_to(std::back_inserter(out), "%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace troupe::lws
