#include "lws/pod_parts.hpp"

namespace troupe::lws {

using json = nlohmann::ordered_json;

json common_labels(const manifest_options& options) {
  return {{"app.kubernetes.io/name", "troupe"}, {"app.kubernetes.io/instance", options.name}};
}

json object(const manifest_options& options, const char* version, const char* kind,
            const std::string& name) {
  json metadata = {{"name", name}};
  if (!options.namespace_name.empty()) metadata["namespace"] = options.namespace_name;
  metadata["labels"] = common_labels(options);
  return {{"apiVersion", version}, {"kind", kind}, {"metadata", metadata}};
}

json policy_port(const char* protocol, int first, int last) {
  json made = {{"protocol", protocol}, {"port", first}};
  if (last > 0) made["endPort"] = last;
  return made;
}

json names_egress(const char* comment) {
  return {
      {"#", comment},
      {"to", json::array({{{"namespaceSelector",
                            {{"matchLabels", {{"kubernetes.io/metadata.name", "kube-system"}}}}},
                           {"podSelector", {{"matchLabels", {{"k8s-app", "kube-dns"}}}}}}})},
      {"ports", json::array({policy_port("UDP", 53), policy_port("TCP", 53)})}};
}

json from_field(const char* name, const char* path) {
  return {{"name", name}, {"valueFrom", {{"fieldRef", {{"fieldPath", path}}}}}};
}

json http_probe(const char* path, int period_s, int failures) {
  return {{"httpGet", {{"path", path}, {"port", "http"}}},
          {"periodSeconds", period_s},
          {"failureThreshold", failures}};
}

json mount(const char* name, const char* path) {
  return {{"name", name}, {"mountPath", path}, {"readOnly", true}};
}

json secret_volume(const char* name, const std::string& secret) {
  constexpr int owner_and_group_read = 0440;  // JSON and YAML have no octal: 288
  return {{"name", name},
          {"secret", {{"secretName", secret}, {"defaultMode", owner_and_group_read}}}};
}

json pre_stop_sleep() { return {{"preStop", {{"sleep", {{"seconds", endpoint_delay_s}}}}}}; }

json pod_security() {
  constexpr int unprivileged_user = 65532;
  return {{"runAsNonRoot", true},
          {"runAsUser", unprivileged_user},
          {"runAsGroup", unprivileged_user},
          {"fsGroup", unprivileged_user},
          {"seccompProfile", {{"type", "RuntimeDefault"}}}};
}

json container_security() {
  return {{"allowPrivilegeEscalation", false},
          {"readOnlyRootFilesystem", true},
          {"capabilities", {{"drop", {"ALL"}}}}};
}

std::string gang_secret(const manifest_options& options) { return options.name + "-gang"; }
std::string api_secret(const manifest_options& options) { return options.name + "-api-keys"; }

}  // namespace troupe::lws
