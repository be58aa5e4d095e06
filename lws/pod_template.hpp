// The pod of a gang's member: leader and workers differ in their probes and ports alone.
#pragma once

#include <nlohmann/json.hpp>

#include "lws/manifest.hpp"

namespace troupe::lws {

enum class member : std::uint8_t { leader, worker };

// A PodTemplateSpec.
[[nodiscard]] nlohmann::ordered_json pod_template(const manifest_options& options, member which);

}  // namespace troupe::lws
