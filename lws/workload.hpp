// A LeaderWorkerSet as a file has it, read for running it on this machine: what `troupe run` needs
// of it, and the names of what it cannot honour.
//
//   TROUPE_TRY(workload, lws::read_workload(text));
//   for (const auto& note : workload.not_honoured) ...
//
// Of one file, the LeaderWorkerSet and the Secrets and ConfigMaps that its pods refer to. Source:
// leaderworkerset.x-k8s.io/v1, https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace troupe::lws {

struct probe_spec {
  bool tcp = false;        // a connection is enough
  std::string path = "/";  // else of HTTP GET, where `command` is empty
  std::string port = {};   // a number, or the name of a port of the container
  std::vector<std::string> command = {};
  int initial_delay_s = 0;
  int period_s = 10;
  int timeout_s = 1;
  int failures = 3;
};

struct variable_spec {
  std::string name;
  std::string value = {};  // with $(NAME) references
  std::string field = {};  // of the pod, in place of a value: metadata.name, status.podIP ...
};

struct mount_spec {
  std::string volume;
  std::string path;
  std::string sub_path = {};
  bool read_only = false;
};

struct container_spec {
  std::string name;
  std::vector<std::string> words;  // command and args, with $(NAME) references
  std::string folder = {};         // working directory
  std::vector<variable_spec> environment = {};
  std::vector<mount_spec> mounts = {};
  std::map<std::string, int> ports = {};  // by name
  std::optional<probe_spec> startup = {};
  std::optional<probe_spec> readiness = {};
  std::optional<probe_spec> liveness = {};
  int pre_stop_s = 0;
};

struct volume_spec {
  std::string name;
  std::string host_path = {};  // empty: a folder of the pod's own, with these files
  std::map<std::string, std::string> files = {};
};

struct pod_spec {
  std::map<std::string, std::string> labels = {};
  std::map<std::string, std::string> annotations = {};
  std::vector<container_spec> first = {};  // initContainers: one after the other
  std::vector<container_spec> containers = {};
  std::vector<volume_spec> volumes = {};
  int grace_s = 30;  // from SIGTERM to SIGKILL
};

enum class restart_rule : std::uint8_t { none, on_pod_restart, after_start };

struct workload {
  std::string name;
  std::string namespace_name = "default";
  int replicas = 1;
  int size = 1;
  pod_spec leader = {};
  pod_spec worker = {};
  restart_rule restart = restart_rule::on_pod_restart;  // LWS's default
  bool leader_first = false;                            // startupPolicy LeaderReady
  bool unique_subdomains = false;                       // UniquePerReplica
  std::optional<int> subgroup_size = {};
  int partition = 0;
  int max_unavailable = 1;  // gangs; percentages are counted
  int max_surge = 0;
  int http_port = 0;     // of the leaders: of a Service that selects them, else a port named http
  std::string revision;  // differs where the templates do
  std::vector<std::string> not_honoured = {};  // paths, with the reason
};

// Errors: invalid_argument (no YAML, no or several LeaderWorkerSets, an unknown field of theirs, an
// impossible value: one line with the field's path), not_found (a Secret or ConfigMap that pods
// need is not in the file).
[[nodiscard]] base::result<workload> read_workload(const std::string& text);

}  // namespace troupe::lws
