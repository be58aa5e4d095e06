// Reads the pod templates of a LeaderWorkerSet, and the Secrets and ConfigMaps they refer to.
// Throws field_error: start-up only.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lws/workload.hpp"
#include "lws/yaml_fields.hpp"

namespace troupe::lws {

// Contents by kind and name: "Secret/llm-gang".
using file_contents = std::map<std::string, std::map<std::string, std::string>>;

// Adds what a document of kind Secret or ConfigMap holds.
void read_contents(yaml_fields document, const std::string& kind, file_contents& into);

// `not_honoured` gets the paths of what means nothing on one machine.
[[nodiscard]] pod_spec read_pod(yaml_fields pod_template, const file_contents& contents,
                                std::vector<std::string>& not_honoured);

}  // namespace troupe::lws
