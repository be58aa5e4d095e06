// The pod of a gang's member: leader and workers differ in their probes and ports alone.
#pragma once

#include <nlohmann/json.hpp>

#include "lws/manifest.hpp"

namespace troupe::lws {

enum class member : std::uint8_t { leader, worker };

// Of `troupe serve`: HTTP, control plane, data plane with the supervisors' on its last.
inline constexpr int http_port = 8000;
inline constexpr int control_port = 8472;
inline constexpr int data_port_first = 8473;
inline constexpr int data_port_last = 8488;

// A PodTemplateSpec.
[[nodiscard]] nlohmann::ordered_json pod_template(const manifest_options& options, member which);

[[nodiscard]] std::string gang_secret(const manifest_options& options);
[[nodiscard]] std::string api_secret(const manifest_options& options);

// app.kubernetes.io labels that every object of a gang has.
[[nodiscard]] nlohmann::ordered_json common_labels(const manifest_options& options);

}  // namespace troupe::lws
