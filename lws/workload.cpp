#include "lws/workload.hpp"

#include <spdlog/fmt/fmt.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/sha256.hpp"
#include "lws/group_environment.hpp"
#include "lws/pod_parts.hpp"
#include "lws/pod_reader.hpp"
#include "lws/yaml_fields.hpp"

namespace troupe::lws {
namespace {

constexpr int pods_max = 200;  // addresses of one run
constexpr const char* group_version = "leaderworkerset.x-k8s.io/v1";
constexpr std::size_t revision_digits = 10;

struct documents {
  YAML::Node set;
  std::vector<YAML::Node> services;
  file_contents contents;
  std::vector<std::string> others;
};

documents sort_documents(const std::string& text) {
  documents sorted;
  for (const YAML::Node& document : YAML::LoadAll(text)) {
    if (document.IsNull()) continue;
    yaml_fields fields(document, "");
    const std::string kind = fields.text("kind");
    const std::string version = fields.text("apiVersion");
    if (kind == "LeaderWorkerSet") {
      if (version != group_version) {
        fields.refuse("apiVersion",
                      fmt::format("\"{}\"; a LeaderWorkerSet is of {}", version, group_version));
      }
      if (sorted.set.IsDefined() && !sorted.set.IsNull()) {
        fields.refuse("kind", "a second LeaderWorkerSet: give a file with one");
      }
      sorted.set = document;
    } else if (kind == "Secret" || kind == "ConfigMap") {
      read_contents(fields, kind, sorted.contents);
    } else if (kind == "Service") {
      sorted.services.push_back(document);
    } else {
      sorted.others.push_back(fmt::format("{} {}",
                                          kind.empty() ? "a document without a kind" : kind,
                                          fields.map("metadata").text("name")));
    }
  }
  if (!sorted.set.IsMap()) throw field_error("kind: there is no LeaderWorkerSet in the file");
  return sorted;
}

// A number of gangs; a percentage of them is rounded as Kubernetes does.
int read_amount(yaml_fields& fields, const char* key, int otherwise, int replicas, bool up) {
  const std::string text = fields.text(key, std::to_string(otherwise));
  const bool percent = text.ends_with('%');
  const std::string digits = percent ? text.substr(0, text.size() - 1) : text;
  if (digits.empty() || digits.size() > 6 ||
      !std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; })) {
    fields.refuse(key, "\"" + text + "\" is no number of gangs and no percentage");
  }
  const int value = std::stoi(digits);
  if (!percent) return value;
  return (replicas * value + (up ? 99 : 0)) / 100;
}

void read_rollout(yaml_fields& spec, workload& made) {
  yaml_fields strategy = spec.map("rolloutStrategy");
  if (strategy.text("type", "RollingUpdate") != "RollingUpdate") {
    strategy.refuse("type", "wanted RollingUpdate");
  }
  yaml_fields rolling = strategy.map("rollingUpdateConfiguration");
  made.partition = rolling.number("partition", 0, 0, pods_max);
  made.max_unavailable = read_amount(rolling, "maxUnavailable", 1, made.replicas, false);
  made.max_surge = read_amount(rolling, "maxSurge", 0, made.replicas, true);
  if (made.max_unavailable + made.max_surge == 0) {
    rolling.refuse("maxUnavailable", "is none, and maxSurge is none too: no update could begin");
  }
  rolling.refuse_rest();
  strategy.refuse_rest();
}

void read_policies(yaml_fields& spec, yaml_fields& group, workload& made) {
  const std::string restart = group.text("restartPolicy", "RecreateGroupOnPodRestart");
  made.restart = restart == "None"                      ? restart_rule::none
                 : restart == "RecreateGroupAfterStart" ? restart_rule::after_start
                                                        : restart_rule::on_pod_restart;
  if (restart != "None" && restart != "RecreateGroupAfterStart" &&
      restart != "RecreateGroupOnPodRestart" && restart != "Default") {
    group.refuse("restartPolicy", "\"" + restart +
                                      "\"; wanted None, RecreateGroupOnPodRestart or "
                                      "RecreateGroupAfterStart");
  }
  if (restart == "Default") made.restart = restart_rule::none;  // LWS's deprecated name of None
  const std::string startup = spec.text("startupPolicy", "LeaderCreated");
  if (startup != "LeaderCreated" && startup != "LeaderReady") {
    spec.refuse("startupPolicy", "\"" + startup + "\"; wanted LeaderCreated or LeaderReady");
  }
  made.leader_first = startup == "LeaderReady";
  yaml_fields network = spec.map("networkConfig");
  const std::string subdomain = network.text("subdomainPolicy", "Shared");
  if (subdomain != "Shared" && subdomain != "UniquePerReplica") {
    network.refuse("subdomainPolicy", "\"" + subdomain + "\"; wanted Shared or UniquePerReplica");
  }
  made.unique_subdomains = subdomain == "UniquePerReplica";
  network.refuse_rest();
}

void read_group(yaml_fields& spec, const file_contents& contents, workload& made) {
  yaml_fields group = spec.map("leaderWorkerTemplate");
  made.size = group.number("size", 1, 1, group_size_max);
  if (group.has("volumeClaimTemplates")) {
    group.refuse("volumeClaimTemplates", "this machine has no claims; use hostPath or emptyDir");
  }
  if (!group.has("workerTemplate")) group.refuse("workerTemplate", "is needed");
  made.worker = read_pod(group.map("workerTemplate"), contents, made.not_honoured);
  // Without one of its own the leader is as the workers are.
  made.leader = group.has("leaderTemplate")
                    ? read_pod(group.map("leaderTemplate"), contents, made.not_honoured)
                    : made.worker;
  yaml_fields subgroups = group.map("subGroupPolicy");
  if (const int pods = subgroups.number("subGroupSize", 0, 0, made.size); pods > 0) {
    if (made.size % pods != 0 && (made.size - 1) % pods != 0) {
      subgroups.refuse("subGroupSize", fmt::format("{} divides neither the {} pods of a group nor "
                                                   "all but the leader",
                                                   pods, made.size));
    }
    made.subgroup_size = pods;
  }
  subgroups.skip("subGroupPolicyType");
  subgroups.refuse_rest();
  read_policies(spec, group, made);
  if (group.has("resizePolicy")) made.not_honoured.push_back(group.path_of("resizePolicy"));
  group.skip("resizePolicy");
  group.refuse_rest();
}

// Where the leaders serve: a Service that selects them, else a port of theirs.
int find_http_port(const std::vector<YAML::Node>& services, const workload& made) {
  std::map<std::string, int> ports;
  for (const container_spec& container : made.leader.containers) {
    ports.insert(container.ports.begin(), container.ports.end());
  }
  std::map<std::string, std::string> labels = made.leader.labels;
  labels[name_label] = made.name;
  labels[index_label] = "0";
  for (const YAML::Node& document : services) {
    yaml_fields spec = yaml_fields(document, "").map("spec");
    const auto selector = spec.entries("selector");
    const bool selects = !selector.empty() && std::ranges::all_of(selector, [&](const auto& one) {
      const auto found = labels.find(one.first);
      return found != labels.end() && found->second == one.second;
    });
    if (!selects) continue;
    for (yaml_fields& port : spec.list("ports")) {
      const int own = port.number("port", 0, 1, 65535);
      const std::string target = port.text("targetPort", std::to_string(own));
      if (ports.contains(target)) return ports.at(target);
      if (target.find_first_not_of("0123456789") == std::string::npos) return std::stoi(target);
    }
  }
  if (ports.contains("http")) return ports.at("http");
  return ports.size() == 1 ? ports.begin()->second : 0;
}

workload read(const std::string& text) {
  const documents sorted = sort_documents(text);
  workload made;
  yaml_fields set(sorted.set, "");
  for (const char* known : {"apiVersion", "kind", "status"}) set.skip(known);
  yaml_fields metadata = set.map("metadata");
  made.name = metadata.text("name");
  if (made.name.empty()) metadata.refuse("name", "a LeaderWorkerSet needs one");
  made.namespace_name = metadata.text("namespace", "default");
  for (const auto& [name, value] : metadata.entries("annotations")) {
    if (name.ends_with("exclusive-topology")) {
      made.not_honoured.push_back("metadata.annotations." + name);
    }
  }
  yaml_fields spec = set.map("spec");
  made.replicas = spec.number("replicas", 1, 0, pods_max);
  if (made.replicas == 0) spec.refuse("replicas", "0 gangs: there is nothing to run");
  read_group(spec, sorted.contents, made);
  read_rollout(spec, made);
  spec.refuse_rest();
  set.refuse_rest();
  if ((made.replicas + made.max_surge) * made.size > pods_max) {
    spec.refuse("replicas", fmt::format("{} groups of {} pods; at most {} pods run here",
                                        made.replicas + made.max_surge, made.size, pods_max));
  }
  made.http_port = find_http_port(sorted.services, made);
  YAML::Emitter templates;
  templates << sorted.set["spec"]["leaderWorkerTemplate"];
  made.revision = base::to_hex(base::sha256_of(templates.c_str())).substr(0, revision_digits);
  for (const std::string& other : sorted.others) made.not_honoured.push_back(other);
  return made;
}

}  // namespace

base::result<workload> read_workload(const std::string& text) {
  using base::error_code;
  try {
    return read(text);
  } catch (const field_error& wrong) {
    return base::fail(error_code::invalid_argument, "lws", wrong.what());
  } catch (const YAML::Exception& wrong) {
    return base::fail(error_code::invalid_argument, "lws",
                      fmt::format("line {}: {}", wrong.mark.line + 1, wrong.msg));
  }
}

}  // namespace troupe::lws
