#include "lws/router_objects.hpp"

#include <spdlog/fmt/fmt.h>

#include "lws/pod_parts.hpp"

namespace troupe::lws {
namespace {

using json = nlohmann::ordered_json;

std::string router_name(const manifest_options& options) { return options.name + "-router"; }

json selector(const manifest_options& options) {
  return {{"app.kubernetes.io/instance", options.name}, {"app.kubernetes.io/component", "router"}};
}

// Reading the pods of its namespace is all that a router may do.
json role(const manifest_options& options) {
  json made = object(options, "rbac.authorization.k8s.io/v1", "Role", router_name(options));
  made["rules"] = json::array({{{"apiGroups", json::array({""})},
                                {"resources", json::array({"pods"})},
                                {"verbs", json::array({"get", "list", "watch"})}}});
  return made;
}

json role_binding(const manifest_options& options) {
  json made = object(options, "rbac.authorization.k8s.io/v1", "RoleBinding", router_name(options));
  made["roleRef"] = {
      {"apiGroup", "rbac.authorization.k8s.io"}, {"kind", "Role"}, {"name", router_name(options)}};
  made["subjects"] = json::array({{{"kind", "ServiceAccount"}, {"name", router_name(options)}}});
  if (!options.namespace_name.empty()) {
    made["subjects"][0]["namespace"] = options.namespace_name;
  }
  return made;
}

json service(const manifest_options& options) {
  json made = object(options, "v1", "Service", router_name(options));
  made["spec"] = {{"#", "Clients ask here; a router chooses the gang."},
                  {"selector", selector(options)},
                  {"ports", json::array({{{"name", "http"},
                                          {"port", http_port},
                                          {"targetPort", "http"},
                                          {"appProtocol", "http"}}})}};
  return made;
}

json container(const manifest_options& options) {
  json made = {{"name", "router"}, {"image", options.image}};
  made["command"] = {"troupe"};
  made["args"] = {"router",
                  fmt::format("--gang-selector={}={},{}=0", name_label, options.name, index_label),
                  fmt::format("--drain-timeout={}", options.drain_timeout_s), "--open-metrics"};
  made["env"] = json::array({from_field("TROUPE_HOST", "status.podIP"),
                             {{"name", "TROUPE_API_KEY_FILE"}, {"value", "/etc/troupe/api/keys"}}});
  made["ports"] = json::array({{{"name", "http"}, {"containerPort", http_port}}});
  made["livenessProbe"] = http_probe("/health", 5, 6);
  made["#ready"] = "Also while no gang is ready: requests wait here for one.";
  made["readinessProbe"] = http_probe("/health", 2, 1);
  made["lifecycle"] = pre_stop_sleep();
  made["resources"] = {{"requests", {{"cpu", "1"}, {"memory", "256Mi"}}},
                       {"limits", {{"memory", "1Gi"}}}};
  made["securityContext"] = container_security();
  made["volumeMounts"] = json::array({mount("api", "/etc/troupe/api")});
  return made;
}

json deployment(const manifest_options& options) {
  json made = object(options, "apps/v1", "Deployment", router_name(options));
  json pod;
  pod["serviceAccountName"] = router_name(options);
  pod["enableServiceLinks"] = false;
  pod["terminationGracePeriodSeconds"] = endpoint_delay_s + options.drain_timeout_s + exit_margin_s;
  pod["securityContext"] = pod_security();
  pod["containers"] = json::array({container(options)});
  pod["volumes"] = json::array({secret_volume("api", api_secret(options))});
  json labels = common_labels(options);
  labels["app.kubernetes.io/component"] = "router";
  made["spec"] = {{"replicas", options.routers},
                  {"selector", {{"matchLabels", selector(options)}}},
                  {"strategy", {{"rollingUpdate", {{"maxUnavailable", 0}, {"maxSurge", 1}}}}},
                  {"template", {{"metadata", {{"labels", labels}}}, {"spec", pod}}}};
  return made;
}

json network_policy(const manifest_options& options) {
  json made = object(options, "networking.k8s.io/v1", "NetworkPolicy", router_name(options));
  const json leaders = {
      {"podSelector", {{"matchLabels", {{name_label, options.name}, {index_label, "0"}}}}}};
  json ingress = {{"#", "HTTP, from all pods of this namespace; add who else may ask."},
                  {"from", json::array({{{"podSelector", json::object()}}})},
                  {"ports", json::array({policy_port("TCP", http_port)})}};
  json egress = json::array();
  egress.push_back({{"#", "The gangs."},
                    {"to", json::array({leaders})},
                    {"ports", json::array({policy_port("TCP", http_port)})}});
  egress.push_back({{"#", "The API server, whose address is the cluster's to know."},
                    {"ports", json::array({policy_port("TCP", 443), policy_port("TCP", 6443)})}});
  made["spec"] = {{"podSelector", {{"matchLabels", selector(options)}}},
                  {"policyTypes", {"Ingress", "Egress"}},
                  {"ingress", json::array({ingress})},
                  {"egress", egress}};
  return made;
}

}  // namespace

std::vector<json> router_objects(const manifest_options& options) {
  std::vector<json> all;
  all.push_back(object(options, "v1", "ServiceAccount", router_name(options)));
  all.push_back(role(options));
  all.push_back(role_binding(options));
  if (!options.core_only) all.push_back(network_policy(options));
  all.push_back(service(options));
  all.push_back(deployment(options));
  return all;
}

}  // namespace troupe::lws
