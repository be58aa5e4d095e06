// What a container of `troupe run` finds: its variables and the names of all pods. Pure.
#pragma once

#include <string>
#include <vector>

#include "lws/local_pod.hpp"

namespace troupe::lws {

// NAME=value, with its references replaced. LWS's variables come first; TROUPE_GANG_HOST is this
// machine's own: all pods share its network, each with an address.
// Errors: invalid_argument (a field that a pod does not have here).
[[nodiscard]] base::result<std::vector<std::string>> container_environment(
    const local_pod& pod, const container_spec& container, const std::string& path_variable);

// The command line with $(NAME) replaced by what is in the environment.
[[nodiscard]] std::vector<std::string> expand_words(const std::vector<std::string>& words,
                                                    const std::vector<std::string>& environment);

// /etc/hosts: every name that Kubernetes' DNS has for the pods.
[[nodiscard]] std::string hosts_file(const workload& of, const std::vector<pod_identity>& pods);

}  // namespace troupe::lws
