// Reads from a Kubernetes API server as a pod of the cluster does: its service account's token, the
// cluster's own authority. Blocking calls, any thread.
//
//   TROUPE_TRY(api, lws::kubernetes_api::of_pod(std::getenv));
//   TROUPE_TRY(reply, api.get("/api/v1/namespaces/default/pods", std::chrono::seconds(10)));
#pragma once

#include <chrono>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "net/http_client.hpp"

namespace troupe::lws {

struct kubernetes_access {
  std::string server = {};      // https://host:port
  std::string token_file = {};  // empty: no token. Read again for each call, since it is renewed
  std::string authorities_file = {};  // PEM; empty: the system's
  std::string namespace_name = {};
};

class kubernetes_api {
 public:
  explicit kubernetes_api(kubernetes_access access) : access_(std::move(access)) {}

  // What the kubelet gives every pod. `folder` is where it mounts the service account.
  // Errors: failed_precondition (this is no pod, or it has no token: which one is missing).
  [[nodiscard]] static base::result<kubernetes_access> access_of_pod(
      const std::function<const char*(const char*)>& environment,
      const std::string& folder = "/var/run/secrets/kubernetes.io/serviceaccount");

  // The whole body of an answer with status 200.
  // Errors: permission_denied, unauthenticated, not_found, those of http_fetch.
  [[nodiscard]] base::result<std::string> get(const std::string& path,
                                              std::chrono::milliseconds patience,
                                              const std::stop_token& stop = {}) const;
  // Each line of a streamed answer, until it ends or `line` returns false.
  [[nodiscard]] base::result<void> watch(const std::string& path,
                                         std::chrono::milliseconds patience,
                                         const std::function<bool(std::string_view)>& line,
                                         const std::stop_token& stop) const;

  [[nodiscard]] const kubernetes_access& access() const noexcept { return access_; }

 private:
  [[nodiscard]] base::result<net::http_call> call_of(const std::string& path,
                                                     std::chrono::milliseconds patience,
                                                     const std::stop_token& stop) const;

  kubernetes_access access_;
};

// Percent-encodes what a query's value cannot have.
[[nodiscard]] std::string query_value(std::string_view text);

}  // namespace troupe::lws
