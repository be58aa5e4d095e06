#include "lws/extra_objects.hpp"

#include "lws/pod_parts.hpp"

namespace troupe::lws {
namespace {

using json = nlohmann::ordered_json;

constexpr const char* certificates_version = "cert-manager.io/v1";
constexpr int picker_port = 9002;  // the inference extension's own

json leaders(const manifest_options& options) {
  return {{"matchLabels", {{name_label, options.name}, {index_label, "0"}}}};
}

json issuer(const manifest_options& options, const std::string& name, const json& spec) {
  json made = object(options, certificates_version, "Issuer", name);
  made["spec"] = spec;
  return made;
}

json certificate(const manifest_options& options, const std::string& name,
                 const std::string& issued_by) {
  json made = object(options, certificates_version, "Certificate", name);
  made["spec"] = {{"secretName", name},
                  {"commonName", name},
                  {"duration", "43800h"},
                  {"privateKey", {{"algorithm", "ECDSA"}, {"size", 256}}},
                  {"issuerRef", {{"name", issued_by}, {"kind", "Issuer"}}}};
  return made;
}

json pod_monitor(const manifest_options& options) {
  json made = object(options, "monitoring.coreos.com/v1", "PodMonitor", options.name);
  made["spec"] = {{"#", "Leaders alone have HTTP; their metrics speak for the whole gang."},
                  {"selector", leaders(options)},
                  {"podMetricsEndpoints",
                   json::array({{{"port", "http"}, {"path", "/metrics"}, {"interval", "15s"}}})}};
  return made;
}

// The set's scale subresource names the leaders as its pods.
json autoscaler(const manifest_options& options) {
  json made = object(options, "autoscaling/v2", "HorizontalPodAutoscaler", options.name);
  json waiting = {
      {"metric", {{"name", "vllm:num_requests_waiting"}}},
      {"target",
       {{"type", "AverageValue"}, {"averageValue", std::to_string(options.autoscale->waiting)}}}};
  made["spec"] = {
      {"scaleTargetRef",
       {{"apiVersion", "leaderworkerset.x-k8s.io/v1"},
        {"kind", "LeaderWorkerSet"},
        {"name", options.name}}},
      {"minReplicas", options.autoscale->least},
      {"maxReplicas", options.autoscale->most},
      {"#", "Requests that wait in a leader, from the cluster's custom metrics (an adapter)."},
      {"metrics", json::array({{{"type", "Pods"}, {"pods", waiting}}})},
      {"#down", "A gang that goes takes its prefix cache along, and one that comes loads first."},
      {"behavior", {{"scaleDown", {{"stabilizationWindowSeconds", 600}}}}}};
  return made;
}

json inference_pool(const manifest_options& options) {
  json made = object(options, "inference.networking.k8s.io/v1", "InferencePool", options.name);
  made["spec"] = {{"selector", leaders(options)},
                  {"targetPorts", json::array({{{"number", http_port}}})},
                  {"endpointPickerRef",
                   {{"name", options.inference_pool}, {"port", {{"number", picker_port}}}}}};
  return made;
}

json resource_claim(const manifest_options& options) {
  json made =
      object(options, "resource.k8s.io/v1", "ResourceClaimTemplate", claim_template(options));
  json request = {
      {"name", "gpu"},
      {"exactly", {{"deviceClassName", options.device_class}, {"count", options.gpus}}}};
  made["spec"] = {{"spec", {{"devices", {{"requests", json::array({request})}}}}}};
  return made;
}

}  // namespace

std::string claim_template(const manifest_options& options) { return options.name + "-gpus"; }

std::vector<json> certificate_objects(const manifest_options& options) {
  const std::string gang = gang_secret(options);
  const std::string authority = gang + "-authority";
  json of_authority = certificate(options, authority, gang + "-self");
  of_authority["spec"]["isCA"] = true;
  json of_gang = certificate(options, gang, authority);
  of_gang["spec"]["usages"] = {"digital signature", "server auth", "client auth"};
  of_gang["spec"]["dnsNames"] = json::array({gang});
  return {issuer(options, gang + "-self", {{"selfSigned", json::object()}}), of_authority,
          issuer(options, authority, {{"ca", {{"secretName", authority}}}}), of_gang};
}

std::vector<json> extra_objects(const manifest_options& options) {
  std::vector<json> all;
  if (!options.device_class.empty()) all.push_back(resource_claim(options));
  if (options.pod_monitor) all.push_back(pod_monitor(options));
  if (options.autoscale) all.push_back(autoscaler(options));
  if (!options.inference_pool.empty()) all.push_back(inference_pool(options));
  return all;
}

}  // namespace troupe::lws
