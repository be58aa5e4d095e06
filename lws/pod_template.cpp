#include "lws/pod_template.hpp"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "lws/extra_objects.hpp"
#include "lws/group_environment.hpp"
#include "lws/pod_parts.hpp"

namespace troupe::lws {
namespace {

using json = nlohmann::ordered_json;

constexpr const char* state_dir = "/run/troupe";

json environment(const manifest_options& options, member which) {
  json all = json::array();
  json revision = {{"#", "A leader refuses workers of another revision during a rollout."}};
  revision.update(from_field(
      "TROUPE_REVISION", "metadata.labels['leaderworkerset.sigs.k8s.io/template-revision-hash']"));
  all.push_back(std::move(revision));
  if (options.subgroup_size) {
    all.push_back(from_field(subgroup_size_variable,
                             "metadata.annotations['leaderworkerset.sigs.k8s.io/subgroup-size']"));
  }
  all.push_back({{"name", "TROUPE_STATE_DIR"}, {"value", state_dir}});
  // Without a gang's network HTTP would be on loopback, out of the reach of probes.
  if (options.nodes == 1) all.push_back(from_field("TROUPE_HOST", "status.podIP"));
  if (which == member::leader) {
    all.push_back({{"name", "TROUPE_API_KEY_FILE"}, {"value", "/etc/troupe/api/keys"}});
  }
  for (const std::string& entry : options.environment) {
    const std::size_t equals = entry.find('=');
    all.push_back({{"name", entry.substr(0, equals)}, {"value", entry.substr(equals + 1)}});
  }
  return all;
}

json arguments(const manifest_options& options) {
  const bool mounted = options.model.kind != model_source_kind::none;
  json words = {"serve", mounted ? "/model" : options.model_argument};
  const auto add = [&](const char* flag, const std::string& value) {
    words.push_back(fmt::format("{}={}", flag, value));
  };
  if (!options.served_model_name.empty()) add("--served-model-name", options.served_model_name);
  add("--tensor-parallel-size", std::to_string(options.tensor_parallel_size));
  add("--pipeline-parallel-size", std::to_string(options.pipeline_parallel_size));
  if (options.nodes > 1) add("--data-plane", options.data_plane);
  add("--drain-timeout", std::to_string(options.drain_timeout_s));
  // Probes and scrapers have no key; the NetworkPolicy says who reaches the port.
  words.push_back("--open-metrics");
  for (const std::string& word : options.serve_flags) words.push_back(word);
  return words;
}

json exec_probe(json command, int period_s, int failures) {
  return {{"exec", {{"command", std::move(command)}}},
          {"periodSeconds", period_s},
          {"timeoutSeconds", 3},
          {"failureThreshold", failures}};
}

// A supervisor answers when it knows its addresses: names may be as late as --gang-timeout allows.
constexpr int startup_period_s = 2;
constexpr int startup_failures = 330;

// Liveness asks the supervisor alone: while a gang loads or mends itself nobody is restarted for
// it.
void add_probes(json& container, member which) {
  if (which == member::leader) {
    container["startupProbe"] = http_probe("/health", startup_period_s, startup_failures);
    container["livenessProbe"] = http_probe("/health", 5, 6);
    container["#ready"] = "A decode step over all ranks has finished in the gang's present epoch.";
    container["readinessProbe"] = http_probe("/ready", 2, 1);
    return;
  }
  const json alive = {"troupe", "health", "--alive"};
  container["startupProbe"] = exec_probe(alive, startup_period_s, startup_failures);
  container["livenessProbe"] = exec_probe(alive, 10, 3);
  container["#ready"] = "Every rank of this pod is joined in the gang's present epoch.";
  container["readinessProbe"] = exec_probe({"troupe", "health"}, 2, 1);
}

json resources(const manifest_options& options) {
  constexpr std::uint64_t mib = 1U << 20U;
  const std::string memory = fmt::format("{}Mi", (options.memory_bytes + mib - 1) / mib);
  json requests = {{"cpu", std::to_string(options.cpus)}, {"memory", memory}};
  json limits = {{"memory", memory}};
  json made = {{"requests", requests}, {"limits", limits}};
  if (!options.device_class.empty()) {
    made["claims"] = json::array({{{"name", "gpus"}}});
  } else if (options.gpus > 0) {
    made["limits"]["nvidia.com/gpu"] = std::to_string(options.gpus);
  }
  return made;
}

json container(const manifest_options& options, member which) {
  json made = {{"name", "troupe"}, {"image", options.image}};
  made["command"] = {"troupe"};
  made["args"] = arguments(options);
  made["env"] = environment(options, which);
  json ports = json::array();
  const auto open = [&](const char* name, int port) {
    ports.push_back({{"name", name}, {"containerPort", port}});
  };
  if (which == member::leader) open("http", http_port);
  if (options.nodes > 1 && which == member::leader) open("control", control_port);
  if (options.nodes > 1) open("data", data_port_first);
  if (!ports.empty()) made["ports"] = ports;
  add_probes(made, which);
  made["#stop"] = "Requests that are still sent here find it serving.";
  made["lifecycle"] = pre_stop_sleep();
  made["resources"] = resources(options);
  made["securityContext"] = container_security();
  made["volumeMounts"] = {{{"name", "state"}, {"mountPath", state_dir}}};
  if (options.nodes > 1) made["volumeMounts"].push_back(mount("gang", "/etc/troupe/gang"));
  if (which == member::leader) made["volumeMounts"].push_back(mount("api", "/etc/troupe/api"));
  if (options.model.kind != model_source_kind::none) {
    made["volumeMounts"].push_back(mount("model", "/model"));
  }
  return made;
}

json volumes(const manifest_options& options, member which) {
  json all = json::array();
  all.push_back({{"#", "Memory that ranks of a pod share needs no volume: it has no name."},
                 {"name", "state"},
                 {"emptyDir", {{"medium", "Memory"}, {"sizeLimit", "16Mi"}}}});
  if (options.nodes > 1) all.push_back(secret_volume("gang", gang_secret(options)));
  if (which == member::leader) all.push_back(secret_volume("api", api_secret(options)));
  const std::string& name = options.model.name;
  switch (options.model.kind) {
    case model_source_kind::none:
      break;
    case model_source_kind::claim:
      all.push_back({{"name", "model"},
                     {"persistentVolumeClaim", {{"claimName", name}, {"readOnly", true}}}});
      break;
    case model_source_kind::image:
      all.push_back(
          {{"name", "model"}, {"image", {{"reference", name}, {"pullPolicy", "IfNotPresent"}}}});
      break;
    case model_source_kind::host_path:
      all.push_back({{"name", "model"}, {"hostPath", {{"path", name}, {"type", "Directory"}}}});
      break;
    case model_source_kind::init:
      all.push_back({{"name", "model"}, {"emptyDir", json::object()}});
      break;
  }
  return all;
}

// Runs before the member: its own command puts the model into /model.
json model_container(const manifest_options& options) {
  return {{"name", "model"},
          {"image", options.model.name},
          {"securityContext", container_security()},
          {"volumeMounts", json::array({{{"name", "model"}, {"mountPath", "/model"}}})}};
}

}  // namespace

json pod_template(const manifest_options& options, member which) {
  json spec;
  spec["automountServiceAccountToken"] = false;
  spec["enableServiceLinks"] = false;
  spec["#grace"] =
      "The sleep before SIGTERM, --drain-timeout for open requests, the processes' end.";
  spec["terminationGracePeriodSeconds"] =
      endpoint_delay_s + options.drain_timeout_s + exit_margin_s;
  spec["securityContext"] = pod_security();
  if (options.model.kind == model_source_kind::init) {
    spec["#model"] = "What it downloads, the NetworkPolicy's egress has to allow.";
    spec["initContainers"] = json::array({model_container(options)});
  }
  spec["containers"] = json::array({container(options, which)});
  if (!options.device_class.empty()) {
    spec["resourceClaims"] =
        json::array({{{"name", "gpus"}, {"resourceClaimTemplateName", claim_template(options)}}});
  }
  spec["volumes"] = volumes(options, which);
  json labels = common_labels(options);
  labels["app.kubernetes.io/component"] = which == member::leader ? "leader" : "worker";
  return {{"metadata", {{"labels", labels}}}, {"spec", spec}};
}

}  // namespace troupe::lws
