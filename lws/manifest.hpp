// The Kubernetes objects that run a gang under LeaderWorkerSet, as YAML.
//
//   TROUPE_TRY(files, lws::make_manifest({.name = "llm", .image = "registry/troupe:1", ...}));
//   for (const auto& file : files) std::cout << "---\n" << file.yaml;
//
// What the API server or LWS's webhook would refuse is refused here first, with the field's path.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace troupe::lws {

enum class model_source_kind : std::uint8_t { none, claim, image, host_path, init };

// Where pods get the model's folder from. It is mounted read-only at /model.
struct model_source {
  model_source_kind kind = model_source_kind::none;  // none: `demo`, or it is in the image
  std::string name;                                  // of the claim or image; the host's folder
};

// "pvc:CLAIM", "image:REFERENCE" (a volume), "init:REFERENCE" (a container that runs first and
// fills /model) or "hostPath:/FOLDER". Errors: invalid_argument.
[[nodiscard]] base::result<model_source> parse_model_source(const std::string& text);

// Where the objects come from that hold what must stay secret.
enum class secret_source : std::uint8_t {
  existing,      // the manifest names Secrets that somebody makes
  generated,     // the manifest holds them
  cert_manager,  // the gang's certificates come from cert-manager, the API keys from somebody
};

struct secret_texts {  // of secret_source::generated
  std::string api_key;
  std::string certificate;  // PEM, as certificate, key and authority of one gang
  std::string key;
  std::string authority;
};

// Of a HorizontalPodAutoscaler.
struct autoscale_bounds {
  int least = 1;
  int most = 1;
  int waiting = 4;  // requests that may wait for each gang
};

// "1-8", or "1-8:4" with the requests that may wait. Errors: invalid_argument.
[[nodiscard]] base::result<autoscale_bounds> parse_autoscale(const std::string& text);

struct manifest_options {
  std::string name;
  std::string namespace_name = {};  // empty: that of kubectl
  std::string image;
  std::string model_argument = "demo";  // of `troupe serve`, as the pods see it
  model_source model = {};
  std::string served_model_name = {};         // empty: the model argument
  std::vector<std::string> serve_flags = {};  // beside the sizes: words of the command line
  std::vector<std::string> environment = {};  // NAME=VALUE
  int replicas = 1;                           // gangs
  int nodes = 2;                              // pods of a gang
  int routers = 0;                            // pods of `troupe router` before the gangs
  int tensor_parallel_size = 2;
  int pipeline_parallel_size = 1;
  std::optional<int> subgroup_size = {};  // pods
  std::string data_plane = "tls";  // or "ucx", which trusts the network that the policy closes
  std::uint64_t memory_bytes = 0;  // of the pod that needs most
  int cpus = 4;
  int gpus = 0;  // nvidia.com/gpu of a pod
  int drain_timeout_s = 100;
  std::string restart_policy = "None";
  std::string startup_policy = "LeaderCreated";
  std::string subdomain_policy = "Shared";
  std::string max_unavailable = "0";  // a number of gangs, or a percentage
  std::string max_surge = "1";
  int partition = 0;
  std::string exclusive_topology = {};  // a node label, e.g. of a rack; empty: no constraint
  std::optional<autoscale_bounds> autoscale = {};  // in place of `replicas`
  bool pod_monitor = false;                        // for the Prometheus operator
  std::string queue = {};                          // of Kueue, which admits whole groups
  std::string inference_pool = {};  // Service of the endpoint picker; empty: no InferencePool
  std::string device_class = {};    // `gpus` by dynamic resource allocation
  secret_source secrets = secret_source::existing;
  secret_texts texts = {};
  bool core_only = false;  // the LeaderWorkerSet and its Service alone
};

struct manifest_file {
  std::string name;  // "leaderworkerset.yaml"
  std::string yaml;  // one or more documents
};

// Errors: invalid_argument: what, at which path, how to mend it.
[[nodiscard]] base::result<void> check_manifest(const manifest_options& options);

// Errors: those of check_manifest.
[[nodiscard]] base::result<std::vector<manifest_file>> make_manifest(
    const manifest_options& options);

// kustomization.yaml of a folder with these files.
[[nodiscard]] std::string kustomization(const manifest_options& options,
                                        const std::vector<manifest_file>& files);

}  // namespace troupe::lws
