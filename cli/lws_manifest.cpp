// troupe lws manifest MODEL: the Kubernetes objects that run it under LeaderWorkerSet.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "base/entropy.hpp"
#include "base/tls.hpp"
#include "cli/commands.hpp"
#include "cli/engine_limits.hpp"
#include "cli/group_sizes.hpp"
#include "cli/layout_report.hpp"
#include "cli/model_flags.hpp"
#include "cli/owner_file.hpp"
#include "cli/yaml_config.hpp"
#include "lws/manifest.hpp"

namespace troupe::cli {
namespace {

struct manifest_flags {
  model_flags model;
  lws::manifest_options made;
  int subgroup_size = 0;
  std::string source;
  std::string secrets = "existing";
  std::string autoscale;
  std::string only = "all";
  std::string output_dir;
  std::vector<std::string> passed_on;  // names of the flags that `troupe serve` gets as given
};

// What a process of a rank has beside weights, cache and scratch, and the pod beside its ranks.
constexpr std::uint64_t rank_overhead_bytes = 160ULL << 20U;
constexpr std::uint64_t pod_overhead_bytes = 256ULL << 20U;

// Bytes of a rank's cache where nobody says: half of the sequences at full length, since fewer are
// that long and a full cache only waits, but no more than the weights (or 4 GiB), and no less than
// one sequence needs.
std::uint64_t default_cache_bytes(const manifest_flags& flags, const layout_report& report,
                                  std::int64_t max_model_len) {
  constexpr std::uint64_t mib = 1U << 20U;
  std::uint64_t most = 4096 * mib;
  std::int64_t bytes_per_token = 1;
  for (const rank_report& rank : report.ranks) {
    bytes_per_token = std::max(bytes_per_token, rank.kv_bytes_per_token);
    most = std::max(most, rank.weight_bytes);
  }
  const auto sequence = static_cast<std::uint64_t>(max_model_len * bytes_per_token);
  const std::int64_t half = std::max<std::int64_t>(1, flags.model.max_num_seqs / 2);
  const std::uint64_t wanted = sequence * static_cast<std::uint64_t>(half);
  return (std::max(sequence, std::min(most, wanted)) / mib + 1) * mib;
}

// Bytes of the pod that needs most, and the cache that its ranks may fill: what the figure counts
// on is what `serve` is told.
base::result<void> size_pods(manifest_flags& flags) {
  TROUPE_TRY(opened, open_model(flags.model));
  TROUPE_TRY(report, report_layout(opened, flags.model, flags.made.tensor_parallel_size,
                                   flags.made.pipeline_parallel_size));
  if (!report.refused.empty()) {
    return base::fail(base::error_code::invalid_argument, "cli", report.refused);
  }
  TROUPE_TRY(limits, choose_limits(flags.model, opened, {}));
  auto kv_bytes = static_cast<std::uint64_t>(opened.kv_cache_bytes);
  // On GPUs the cache is in their memory, and `serve` takes what there is.
  if (kv_bytes == 0 && flags.made.gpus == 0) {
    kv_bytes = default_cache_bytes(flags, report, limits.max_model_len);
    flags.made.serve_flags.push_back(fmt::format("--kv-cache-memory={}M", kv_bytes >> 20U));
  }
  const std::size_t ranks_a_pod = report.ranks.size() / static_cast<std::size_t>(flags.made.nodes);
  for (std::size_t first = 0; first < report.ranks.size(); first += ranks_a_pod) {
    std::uint64_t pod = pod_overhead_bytes;
    for (std::size_t rank = first; rank < first + ranks_a_pod; ++rank) {
      pod += report.ranks[rank].weight_bytes + report.ranks[rank].scratch_bytes + kv_bytes +
             rank_overhead_bytes;
    }
    flags.made.memory_bytes = std::max(flags.made.memory_bytes, pod);
  }
  return {};
}

// Where pods have the model: mounted from a source, or at the same place as here.
base::result<void> choose_model(manifest_flags& flags) {
  flags.made.model_argument = flags.model.model;
  if (!flags.source.empty()) {
    TROUPE_TRY(source, lws::parse_model_source(flags.source));
    flags.made.model = std::move(source);
    // Every model is mounted at the same place: clients know it by the name of its folder.
    if (flags.made.served_model_name.empty()) {
      const std::filesystem::path folder = std::filesystem::path(flags.model.model) / "";
      flags.made.served_model_name = folder.parent_path().filename().string();
    }
    return {};
  }
  if (flags.model.model == "demo") return {};
  return base::fail(base::error_code::invalid_argument, "cli",
                    "--model-source: pods do not have the folder " + flags.model.model +
                        ": say where they get it, pvc:CLAIM, image:REFERENCE, "
                        "init:REFERENCE or hostPath:/FOLDER");
}

base::result<void> make_secrets(lws::manifest_options& made) {
  constexpr std::size_t key_words = 4;
  TROUPE_TRY(credentials, base::make_gang_credentials());
  made.texts = {.api_key = "sk-",
                .certificate = credentials.certificate,
                .key = credentials.key,
                .authority = credentials.authority};
  for (std::size_t i = 0; i < key_words; ++i) {
    TROUPE_TRY(word, base::draw_seed());
    made.texts.api_key += fmt::format("{:016x}", word);
  }
  return {};
}

base::result<void> write_folder(const manifest_flags& flags,
                                std::vector<lws::manifest_file> files) {
  const std::filesystem::path folder = flags.output_dir;
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  files.push_back({.name = "kustomization.yaml", .yaml = kustomization(flags.made, files)});
  for (const lws::manifest_file& file : files) {
    const std::filesystem::path path = folder / file.name;
    if (file.name == "secrets.yaml") {
      std::filesystem::remove(path, problem);  // of a former run
      TROUPE_TRY_VOID(write_owner_file(path, file.yaml));
      continue;
    }
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out << file.yaml;
    out.close();
    if (!out) {
      return base::fail(base::error_code::failed_precondition, "cli",
                        "cannot write " + path.string());
    }
  }
  return {};
}

base::result<void> make_manifest(const CLI::App& parser, manifest_flags& flags) {
  for (const std::string& flag : flags.passed_on) {
    if (parser.count(flag) == 0) continue;
    flags.made.serve_flags.push_back(flag + "=" + parser.get_option(flag)->results().back());
  }
  if (!flags.autoscale.empty()) {
    TROUPE_TRY(bounds, lws::parse_autoscale(flags.autoscale));
    flags.made.autoscale = bounds;
  }
  if (flags.subgroup_size > 0) flags.made.subgroup_size = flags.subgroup_size;
  TROUPE_TRY(why,
             choose_group_sizes(parser, flags.made.nodes, flags.made.subgroup_size, flags.model));
  flags.made.tensor_parallel_size = flags.model.tensor_parallel_size;
  flags.made.pipeline_parallel_size = flags.model.pipeline_parallel_size;
  flags.made.core_only = flags.only == "core";
  TROUPE_TRY_VOID(lws::check_manifest(flags.made));  // before the model is opened
  TROUPE_TRY_VOID(choose_model(flags));
  TROUPE_TRY_VOID(size_pods(flags));
  if (parser.count("--threads-per-rank") == 0) {
    const int ranks = flags.made.tensor_parallel_size * flags.made.pipeline_parallel_size;
    const int threads = std::max(1, flags.made.cpus * flags.made.nodes / ranks);
    flags.made.serve_flags.push_back(fmt::format("--threads-per-rank={}", threads));
  }
  if (flags.secrets == "cert-manager") flags.made.secrets = lws::secret_source::cert_manager;
  if (flags.secrets == "generated") {
    flags.made.secrets = lws::secret_source::generated;
    TROUPE_TRY_VOID(make_secrets(flags.made));
  }
  TROUPE_TRY(files, lws::make_manifest(flags.made));
  constexpr double mib = 1 << 20;
  fmt::print(stderr,
             "troupe: {} x {} pods, --tensor-parallel-size {} --pipeline-parallel-size {} ({}); "
             "{:.0f} MiB and {} cores a pod\n",
             flags.made.replicas, flags.made.nodes, flags.made.tensor_parallel_size,
             flags.made.pipeline_parallel_size, why.value_or("as the flags say"),
             static_cast<double>(flags.made.memory_bytes) / mib, flags.made.cpus);
  if (!flags.output_dir.empty()) return write_folder(flags, std::move(files));
  for (const lws::manifest_file& file : files) {
    std::cout << (&file == files.data() ? "" : "---\n") << file.yaml;
  }
  if (std::cout.flush()) return {};
  return base::fail(base::error_code::failed_precondition, "cli", "stdout took not all of it");
}

void add_group_flags(CLI::App& parser, lws::manifest_options& made) {
  parser.add_option("--name", made.name, "of the LeaderWorkerSet and of what belongs to it")
      ->required();
  parser.add_option("--namespace", made.namespace_name, "[that of kubectl]");
  parser.add_option("--image", made.image, "with the program troupe on its PATH")->required();
  parser.add_option("--replicas", made.replicas, "gangs")->capture_default_str();
  parser.add_option("--nodes", made.nodes, "pods of a gang")->capture_default_str();
  parser.add_option("--router", made.routers, "pods of troupe router before the gangs")
      ->capture_default_str();
  parser.add_option("--served-model-name", made.served_model_name,
                    "in answers [of a mounted model: the name of its folder]");
  parser.add_option("--cpus", made.cpus, "cores that a pod asks for")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  parser.add_option("--gpus", made.gpus, "nvidia.com/gpu of a pod, one for each of its ranks")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  parser.add_option("--env", made.environment, "NAME=VALUE for every pod")->allow_extra_args(false);
  parser.add_option("--data-plane", made.data_plane, "tls, or ucx: trusts the pods' network")
      ->capture_default_str();
  parser.add_option("--drain-timeout", made.drain_timeout_s, "s for open requests after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
}

void add_policy_flags(CLI::App& parser, lws::manifest_options& made) {
  parser
      .add_option("--restart-policy", made.restart_policy,
                  "None, RecreateGroupOnPodRestart or RecreateGroupAfterStart")
      ->capture_default_str();
  parser.add_option("--startup-policy", made.startup_policy, "of LWS")->capture_default_str();
  parser.add_option("--subdomain-policy", made.subdomain_policy, "Shared or UniquePerReplica")
      ->capture_default_str();
  parser
      .add_option("--max-unavailable", made.max_unavailable, "gangs, or a percentage, of a rollout")
      ->capture_default_str();
  parser.add_option("--max-surge", made.max_surge, "gangs, or a percentage, beside --replicas")
      ->capture_default_str();
  parser.add_option("--partition", made.partition, "groups below keep the former revision")
      ->capture_default_str();
  parser.add_option("--exclusive-topology", made.exclusive_topology,
                    "node label: a gang has such a domain (a rack) to itself");
}

void add_extra_flags(CLI::App& parser, manifest_flags& flags) {
  parser.add_option("--autoscale", flags.autoscale,
                    "LEAST-MOST[:WAITING]: a HorizontalPodAutoscaler in place of --replicas");
  parser.add_flag("--pod-monitor", flags.made.pod_monitor, "for the Prometheus operator");
  parser.add_option("--queue", flags.made.queue, "of Kueue, which admits whole gangs");
  parser.add_option("--inference-pool", flags.made.inference_pool,
                    "an InferencePool with this Service as its endpoint picker");
  parser.add_option("--device-class", flags.made.device_class,
                    "--gpus by dynamic resource allocation, of this DeviceClass");
}

}  // namespace

command add_lws_manifest(CLI::App& program) {
  auto flags = std::make_shared<manifest_flags>();
  CLI::App* lws = program.add_subcommand("lws", "Kubernetes with LeaderWorkerSet");
  lws->require_subcommand(1);
  CLI::App* parser = lws->add_subcommand("manifest", "Print the objects that run a model");
  add_model_flags(*parser, flags->model);
  for (const CLI::Option* option : parser->get_options()) {
    const std::string name = option->get_name();
    const bool ours = name == "--tensor-parallel-size" || name == "--pipeline-parallel-size";
    if (name.starts_with("--") && name != "--help" && !ours) flags->passed_on.push_back(name);
  }
  add_group_flags(*parser, flags->made);
  add_policy_flags(*parser, flags->made);
  add_extra_flags(*parser, *flags);
  parser->add_option("--subgroup-size", flags->subgroup_size, "pods of a stage [no subgroups]")
      ->check(CLI::Range(1, 64));
  parser->add_option("--model-source", flags->source,
                     "pvc:CLAIM, image:REFERENCE, init:REFERENCE or hostPath:/FOLDER, at /model");
  parser
      ->add_option("--secrets", flags->secrets,
                   "existing: named; generated: in the manifest; cert-manager: makes the gang's")
      ->check(CLI::IsMember({"existing", "generated", "cert-manager"}))
      ->capture_default_str();
  parser->add_option("--only", flags->only, "all, or core: LeaderWorkerSet, Service and Secrets")
      ->check(CLI::IsMember({"all", "core"}))
      ->capture_default_str();
  parser->add_option("--output-dir", flags->output_dir, "a kustomize folder in place of stdout");
  add_sources(*parser);
  return {parser, [flags, parser] {
            const auto made = make_manifest(*parser, *flags);
            return made ? exit_code::fine : report(made.error(), exit_code_of(made.error().code));
          }};
}

}  // namespace troupe::cli
