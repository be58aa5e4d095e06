// Pieces that several objects of a manifest have.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "lws/manifest.hpp"

namespace troupe::lws {

inline constexpr const char* name_label = "leaderworkerset.sigs.k8s.io/name";
inline constexpr const char* index_label = "leaderworkerset.sigs.k8s.io/worker-index";

// Of `troupe serve`: HTTP, control plane, data plane with the supervisors' on its last.
inline constexpr int http_port = 8000;
inline constexpr int control_port = 8472;
inline constexpr int data_port_first = 8473;
inline constexpr int data_port_last = 8488;

// After a pod is told to go, Services and proxies send it requests for a moment still. Kubernetes
// has the sleep since 1.30; it needs no shell in the image.
inline constexpr int endpoint_delay_s = 5;
// From the end of the drain to that of the processes.
inline constexpr int exit_margin_s = 15;

// Labels of every object of a manifest; those of the router are its own, so that nothing that
// selects gangs finds it.
[[nodiscard]] nlohmann::ordered_json common_labels(const manifest_options& options);
[[nodiscard]] nlohmann::ordered_json object(const manifest_options& options, const char* version,
                                            const char* kind, const std::string& name);

// An entry of `ports` of a NetworkPolicy.
[[nodiscard]] nlohmann::ordered_json policy_port(const char* protocol, int first, int last = 0);
// Where the names of the cluster are looked up, as an entry of `egress`.
[[nodiscard]] nlohmann::ordered_json names_egress(const char* comment);

[[nodiscard]] nlohmann::ordered_json from_field(const char* name, const char* path);
[[nodiscard]] nlohmann::ordered_json http_probe(const char* path, int period_s, int failures);
[[nodiscard]] nlohmann::ordered_json mount(const char* name, const char* path);
[[nodiscard]] nlohmann::ordered_json secret_volume(const char* name, const std::string& secret);
[[nodiscard]] nlohmann::ordered_json pre_stop_sleep();

// Nobody, without capabilities, on a root that cannot be written.
[[nodiscard]] nlohmann::ordered_json pod_security();
[[nodiscard]] nlohmann::ordered_json container_security();

[[nodiscard]] std::string gang_secret(const manifest_options& options);
[[nodiscard]] std::string api_secret(const manifest_options& options);

}  // namespace troupe::lws
