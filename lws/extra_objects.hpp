// Objects for what a cluster may have beside LeaderWorkerSet: cert-manager, the Prometheus
// operator, autoscaling, the gateway's inference extension, dynamic resource allocation. Each is
// asked for.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "lws/manifest.hpp"

namespace troupe::lws {

// An authority of the gang's own and its certificate, in the Secret that the pods mount.
// Source: cert-manager.io/v1.
[[nodiscard]] std::vector<nlohmann::ordered_json> certificate_objects(
    const manifest_options& options);

// PodMonitor, HorizontalPodAutoscaler, InferencePool and ResourceClaimTemplate, as asked for.
// Source: monitoring.coreos.com/v1, autoscaling/v2, inference.networking.k8s.io/v1,
// resource.k8s.io/v1.
[[nodiscard]] std::vector<nlohmann::ordered_json> extra_objects(const manifest_options& options);

[[nodiscard]] std::string claim_template(const manifest_options& options);

}  // namespace troupe::lws
