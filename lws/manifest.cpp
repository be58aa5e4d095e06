#include "lws/manifest.hpp"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "lws/extra_objects.hpp"
#include "lws/pod_parts.hpp"
#include "lws/pod_template.hpp"
#include "lws/router_objects.hpp"
#include "lws/yaml_text.hpp"

namespace troupe::lws {
namespace {

using json = nlohmann::ordered_json;

// "1" is a number to Kubernetes, "25%" a text; check_manifest has let nothing else through.
json amount(const std::string& text) {
  return text.ends_with('%') ? json(text) : json(std::stoi(text));
}

const char* why_restart_policy(const std::string& policy) {
  return policy == "None"
             ? "A container that ends is restarted in its pod and joins the gang again; the "
               "others\n"
               "keep their weights. With the Recreate policies LWS replaces all pods, and all load."
             : "LWS replaces all pods of a group when a container of it ends. The gang mends "
               "itself\n"
               "in place before that where a rank alone is lost: its supervisor restarts it.";
}

json leader_worker_set(const manifest_options& options) {
  json set = object(options, "leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", options.name);
  if (!options.exclusive_topology.empty()) {
    set["metadata"]["annotations"] = {
        {"leaderworkerset.sigs.k8s.io/exclusive-topology", options.exclusive_topology}};
  }
  if (!options.queue.empty()) {
    set["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = options.queue;
  }
  json spec;
  // With both, each `kubectl apply` would undo what the autoscaler has done.
  if (!options.autoscale)
    spec = {{"#", "Gangs; each serves on its own."}, {"replicas", options.replicas}};
  spec["#startup"] = "A leader is ready only with its workers, so LeaderReady would wait for ever.";
  spec["startupPolicy"] = options.startup_policy;
  spec["rolloutStrategy"] = {{"type", "RollingUpdate"},
                             {"rollingUpdateConfiguration",
                              {{"partition", options.partition},
                               {"maxUnavailable", amount(options.max_unavailable)},
                               {"maxSurge", amount(options.max_surge)}}}};
  spec["networkConfig"] = {{"subdomainPolicy", options.subdomain_policy}};
  json group = {{"size", options.nodes}};
  group["#restart"] = why_restart_policy(options.restart_policy);
  group["restartPolicy"] = options.restart_policy;
  if (options.subgroup_size) {
    group["subGroupPolicy"] = {{"subGroupPolicyType", "LeaderWorker"},
                               {"subGroupSize", *options.subgroup_size}};
  }
  group["leaderTemplate"] = pod_template(options, member::leader);
  group["workerTemplate"] = pod_template(options, member::worker);
  spec["leaderWorkerTemplate"] = group;
  set["spec"] = spec;
  return set;
}

json service(const manifest_options& options) {
  json made = object(options, "v1", "Service", options.name + "-http");
  made["spec"] = {{"#", "The leaders; LWS makes the headless Service of all pods itself."},
                  {"selector", {{name_label, options.name}, {index_label, "0"}}},
                  {"ports", json::array({{{"name", "http"},
                                          {"port", http_port},
                                          {"targetPort", http_port},
                                          {"appProtocol", "http"}}})}};
  return made;
}

json network_policy(const manifest_options& options) {
  json made = object(options, "networking.k8s.io/v1", "NetworkPolicy", options.name);
  const json members = {{"podSelector", {{"matchLabels", {{name_label, options.name}}}}}};
  const json gang = json::array(
      {policy_port("TCP", control_port), policy_port("TCP", data_port_first, data_port_last)});
  json ingress = json::array();
  ingress.push_back({{"#", "HTTP, from all pods of this namespace; add who else may ask."},
                     {"from", json::array({{{"podSelector", json::object()}}})},
                     {"ports", json::array({policy_port("TCP", http_port)})}});
  json egress = json::array();
  if (options.nodes > 1) {
    ingress.push_back({{"#", "The control and data planes, among members alone."},
                       {"from", json::array({members})},
                       {"ports", gang}});
    egress.push_back({{"to", json::array({members})}, {"ports", gang}});
    egress.push_back(names_egress("The leader's name."));
  }
  made["spec"] = {{"podSelector", {{"matchLabels", {{name_label, options.name}}}}},
                  {"policyTypes", {"Ingress", "Egress"}},
                  {"ingress", ingress},
                  {"egress", egress}};
  return made;
}

json disruption_budget(const manifest_options& options) {
  json made = object(options, "policy/v1", "PodDisruptionBudget", options.name);
  made["spec"] = {{"#", "Any pod of a gang stops all of it: at most one is evicted at a time."},
                  {"maxUnavailable", 1},
                  {"unhealthyPodEvictionPolicy", "AlwaysAllow"},
                  {"selector", {{"matchLabels", {{name_label, options.name}}}}}};
  return made;
}

std::vector<json> secrets(const manifest_options& options) {
  std::vector<json> all;
  json api = object(options, "v1", "Secret", api_secret(options));
  api["stringData"] = {{"keys", options.texts.api_key + "\n"}};
  all.push_back(std::move(api));
  if (options.nodes > 1) {
    json gang = object(options, "v1", "Secret", gang_secret(options));
    gang["stringData"] = {{"tls.crt", options.texts.certificate},
                          {"tls.key", options.texts.key},
                          {"ca.crt", options.texts.authority}};
    all.push_back(std::move(gang));
  }
  return all;
}

std::string documents(const std::vector<json>& objects) {
  std::string yaml;
  for (const json& one : objects) yaml += (yaml.empty() ? "" : "---\n") + to_yaml(one);
  return yaml;
}

// What the manifest takes for granted, at its top.
std::string preface(const manifest_options& options) {
  std::string text = "# Made by `troupe lws manifest`.\n";
  if (options.secrets == secret_source::generated) {
    return text + "# secrets.yaml holds keys: keep it as safe as them.\n";
  }
  const std::string where =
      options.namespace_name.empty() ? "" : " --namespace " + options.namespace_name;
  text += "# It needs Secrets that are yours to make and to renew:\n";
  text += fmt::format("#   kubectl create secret generic {}{} --from-file=keys=KEY_FILE\n",
                      api_secret(options), where);
  if (options.nodes > 1 && options.secrets == secret_source::existing) {
    text += fmt::format(
        "#   troupe certificates DIR && kubectl create secret generic {}{} --from-file=DIR\n",
        gang_secret(options), where);
  }
  return text;
}

}  // namespace

base::result<std::vector<manifest_file>> make_manifest(const manifest_options& options) {
  TROUPE_TRY_VOID(check_manifest(options));
  std::vector<manifest_file> files;
  if (options.secrets == secret_source::generated) {
    files.push_back({.name = "secrets.yaml", .yaml = documents(secrets(options))});
  }
  if (options.secrets == secret_source::cert_manager && options.nodes > 1) {
    files.push_back({.name = "certificates.yaml", .yaml = documents(certificate_objects(options))});
  }
  const auto add = [&files](const char* name, const json& tree) {
    files.push_back({.name = name, .yaml = to_yaml(tree)});
  };
  // Before the pods: none of them is ever reachable without it.
  if (!options.core_only) add("networkpolicy.yaml", network_policy(options));
  add("service.yaml", service(options));
  if (!options.core_only) add("poddisruptionbudget.yaml", disruption_budget(options));
  add("leaderworkerset.yaml", leader_worker_set(options));
  if (options.routers > 0) {
    files.push_back({.name = "router.yaml", .yaml = documents(router_objects(options))});
  }
  if (const std::vector<json> more = extra_objects(options); !more.empty()) {
    files.push_back({.name = "extras.yaml", .yaml = documents(more)});
  }
  files.front().yaml.insert(0, preface(options));
  return files;
}

std::string kustomization(const manifest_options& options,
                          const std::vector<manifest_file>& files) {
  json tree = {{"apiVersion", "kustomize.config.k8s.io/v1beta1"}, {"kind", "Kustomization"}};
  if (!options.namespace_name.empty()) tree["namespace"] = options.namespace_name;
  tree["resources"] = json::array();
  for (const manifest_file& file : files) tree["resources"].push_back(file.name);
  return to_yaml(tree);
}

}  // namespace troupe::lws
