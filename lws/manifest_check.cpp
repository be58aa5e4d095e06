// What Kubernetes, LWS's webhook or the gang itself would refuse, each with the field's path.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string_view>

#include "lws/group_environment.hpp"
#include "lws/manifest.hpp"

namespace troupe::lws {
namespace {

constexpr std::size_t label_value_bytes_max = 63;  // RFC 1123; Kubernetes takes no longer ones
constexpr int replicas_max = 10000;

template <class... Values>
tl::unexpected<base::error> refuse(const char* path, fmt::format_string<Values...> text,
                                   Values&&... values) {
  return base::fail(
      base::error_code::invalid_argument, "lws",
      fmt::format("{}: {}", path, fmt::format(text, std::forward<Values>(values)...)));
}

// Source: RFC 1035, 2.3.1, in lower case as Kubernetes wants it.
bool is_dns_label(std::string_view text) {
  const auto inner = [](unsigned char c) {
    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '-';
  };
  return !text.empty() && text.size() <= label_value_bytes_max &&
         std::islower(static_cast<unsigned char>(text.front())) != 0 && text.back() != '-' &&
         std::all_of(text.begin(), text.end(), inner);
}

// The longest name LWS makes of it is a label's value: <name>-<group>-<hash of the workers' set>.
base::result<void> check_names(const manifest_options& options) {
  if (!is_dns_label(options.name)) {
    return refuse("metadata.name",
                  "\"{}\" names a Service as well: at most 63 of a-z, 0-9 and -, a letter first",
                  options.name);
  }
  constexpr std::size_t hash_bytes = 11;  // "-" and ten digits of controller-revision-hash
  // During a surge there are more groups than replicas, at most twice as many.
  const std::size_t index_bytes = std::to_string(2 * options.replicas).size() + 1;
  const std::size_t room = label_value_bytes_max - hash_bytes - index_bytes;
  if (options.name.size() > room) {
    return refuse(
        "metadata.name",
        "\"{}\" has {} characters; with the suffixes of LWS (-<group>-<revision>) only {} "
        "fit into a label of 63",
        options.name, options.name.size(), room);
  }
  if (!options.namespace_name.empty() && !is_dns_label(options.namespace_name)) {
    return refuse("metadata.namespace", "\"{}\" is no name of a namespace", options.namespace_name);
  }
  if (options.image.empty()) {
    return refuse("spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].image",
                  "give --image REFERENCE");
  }
  return {};
}

base::result<void> check_sizes(const manifest_options& options) {
  if (options.replicas < 1 || options.replicas > replicas_max) {
    return refuse("spec.replicas", "{} gangs; wanted 1 to {} (kubectl scale takes 0)",
                  options.replicas, replicas_max);
  }
  if (options.routers < 0 || options.routers > replicas_max) {
    return refuse("--router", "{} pods; wanted 0 to {}", options.routers, replicas_max);
  }
  constexpr const char* size = "spec.leaderWorkerTemplate.size";
  if (options.nodes < 1 || options.nodes > group_size_max) {
    return refuse(size, "{} pods; wanted 1 to {}", options.nodes, group_size_max);
  }
  const int ranks = options.tensor_parallel_size * options.pipeline_parallel_size;
  if (ranks % options.nodes != 0) {
    return refuse(size,
                  "{} pods do not divide the {} ranks of --tensor-parallel-size {} x "
                  "--pipeline-parallel-size {}",
                  options.nodes, ranks, options.tensor_parallel_size,
                  options.pipeline_parallel_size);
  }
  const int ranks_a_pod = ranks / options.nodes;
  if (options.gpus > 0 && options.gpus != ranks_a_pod) {
    return refuse("spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].resources",
                  "{} GPUs for {} ranks of a pod: a rank computes on one", options.gpus,
                  ranks_a_pod);
  }
  if (options.subgroup_size) {
    constexpr const char* subgroups = "spec.leaderWorkerTemplate.subGroupPolicy.subGroupSize";
    const int pods = *options.subgroup_size;
    if (pods < 1 || options.nodes % pods != 0) {
      return refuse(subgroups, "{} does not divide the {} pods of a gang", pods, options.nodes);
    }
    if (pods * ranks_a_pod % options.tensor_parallel_size != 0) {
      return refuse(subgroups,
                    "subgroups of {} pods cut through the stages of {} ranks (tensor parallel)",
                    pods, options.tensor_parallel_size);
    }
  }
  return {};
}

struct amount {
  int value = 0;
  bool percent = false;
};

std::optional<amount> parse_amount(std::string_view text) {
  amount read;
  read.percent = text.ends_with('%');
  if (read.percent) text.remove_suffix(1);
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), read.value);
  if (problem != std::errc() || stop != text.data() + text.size() || read.value < 0) return {};
  if (read.percent && read.value > 100) return {};
  return read;
}

base::result<void> check_rollout(const manifest_options& options) {
  constexpr const char* unavailable_path =
      "spec.rolloutStrategy.rollingUpdateConfiguration.maxUnavailable";
  const auto unavailable = parse_amount(options.max_unavailable);
  if (!unavailable) {
    return refuse(unavailable_path, "\"{}\" is no number of gangs and no percentage to 100%",
                  options.max_unavailable);
  }
  const auto surge = parse_amount(options.max_surge);
  if (!surge) {
    return refuse("spec.rolloutStrategy.rollingUpdateConfiguration.maxSurge",
                  "\"{}\" is no number of gangs and no percentage to 100%", options.max_surge);
  }
  // A percentage that may be missing is rounded down, one of a surge up.
  const int missing =
      unavailable->percent ? options.replicas * unavailable->value / 100 : unavailable->value;
  if (missing == 0 && surge->value == 0) {
    return refuse(unavailable_path,
                  "{} of {} gangs is none, and maxSurge is none too: no update could begin",
                  options.max_unavailable, options.replicas);
  }
  if (options.partition < 0) {
    return refuse("spec.rolloutStrategy.rollingUpdateConfiguration.partition",
                  "{}; wanted 0 or more", options.partition);
  }
  return {};
}

base::result<void> check_policies(const manifest_options& options) {
  const auto one_of = [](const std::string& value, std::initializer_list<const char*> known) {
    return std::find(known.begin(), known.end(), value) != known.end();
  };
  if (options.startup_policy == "LeaderReady") {
    return refuse("spec.startupPolicy",
                  "LeaderReady starts workers when the leader is ready, and it is ready only with "
                  "its workers: use LeaderCreated");
  }
  if (options.startup_policy != "LeaderCreated") {
    return refuse("spec.startupPolicy", "\"{}\"; wanted LeaderCreated", options.startup_policy);
  }
  if (!one_of(options.restart_policy,
              {"None", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart"})) {
    return refuse("spec.leaderWorkerTemplate.restartPolicy",
                  "\"{}\"; wanted None, RecreateGroupOnPodRestart or RecreateGroupAfterStart",
                  options.restart_policy);
  }
  if (!one_of(options.subdomain_policy, {"Shared", "UniquePerReplica"})) {
    return refuse("spec.networkConfig.subdomainPolicy", "\"{}\"; wanted Shared or UniquePerReplica",
                  options.subdomain_policy);
  }
  if (!one_of(options.data_plane, {"tls", "ucx"})) {
    return refuse("--data-plane", "\"{}\"; between pods: tls or ucx", options.data_plane);
  }
  if (options.data_plane == "ucx" && options.core_only) {
    return refuse("--data-plane",
                  "ucx trusts its network, and --only core leaves out the NetworkPolicy that "
                  "closes it: use tls, or the whole manifest");
  }
  return {};
}

base::result<void> check_extras(const manifest_options& options) {
  if (options.autoscale) {
    const auto& [least, most, waiting] = *options.autoscale;
    if (least < 1 || most < least || most > replicas_max) {
      return refuse("--autoscale", "{} to {} gangs; wanted 1 or more, at most {}", least, most,
                    replicas_max);
    }
    if (waiting < 1) return refuse("--autoscale", "{} waiting requests; wanted 1 or more", waiting);
  }
  if (!options.device_class.empty() && options.gpus == 0) {
    return refuse("--device-class", "needs --gpus: how many devices of {} a pod gets",
                  options.device_class);
  }
  if (!options.queue.empty() && !is_dns_label(options.queue)) {
    return refuse("metadata.labels[kueue.x-k8s.io/queue-name]", "\"{}\" is no name of a queue",
                  options.queue);
  }
  if (!options.inference_pool.empty() && !is_dns_label(options.inference_pool)) {
    return refuse("--inference-pool", "\"{}\" is no name of a Service", options.inference_pool);
  }
  return {};
}

base::result<void> check_environment(const manifest_options& options) {
  constexpr const char* path = "spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].env";
  for (const std::string& entry : options.environment) {
    const std::string name = entry.substr(0, entry.find('='));
    if (name.empty() || name.size() == entry.size()) {
      return refuse(path, "\"{}\"; wanted NAME=VALUE", entry);
    }
    if (is_set_by_lws(name)) {
      return refuse(path, "{} is set by LWS in every pod of a group", name);
    }
  }
  return {};
}

}  // namespace

base::result<model_source> parse_model_source(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  const std::string name = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (kind == "pvc" && !name.empty()) return model_source{model_source_kind::claim, name};
  if (kind == "image" && !name.empty()) return model_source{model_source_kind::image, name};
  if (kind == "init" && !name.empty()) return model_source{model_source_kind::init, name};
  if (kind == "hostPath" && name.starts_with('/')) {
    return model_source{model_source_kind::host_path, name};
  }
  return refuse("--model-source",
                "\"{}\"; wanted pvc:CLAIM, image:REFERENCE, init:REFERENCE or hostPath:/FOLDER",
                text);
}

base::result<autoscale_bounds> parse_autoscale(const std::string& text) {
  autoscale_bounds read;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&](int& into) {
    const auto [stop, problem] = std::from_chars(at, end, into);
    at = stop;
    return problem == std::errc();
  };
  const bool range = number(read.least) && at != end && *at++ == '-' && number(read.most);
  const bool whole = range && (at == end || (*at++ == ':' && number(read.waiting) && at == end));
  if (whole) return read;
  return refuse("--autoscale", "\"{}\"; wanted LEAST-MOST or LEAST-MOST:WAITING, e.g. 1-8:4", text);
}

base::result<void> check_manifest(const manifest_options& options) {
  TROUPE_TRY_VOID(check_names(options));
  TROUPE_TRY_VOID(check_sizes(options));
  TROUPE_TRY_VOID(check_rollout(options));
  TROUPE_TRY_VOID(check_policies(options));
  TROUPE_TRY_VOID(check_extras(options));
  return check_environment(options);
}

}  // namespace troupe::lws
