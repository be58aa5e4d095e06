#include "cli/model_flags.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "cli/yaml_config.hpp"
#include "kernels/cuda_library.hpp"
#include "models/demo/demo_folder.hpp"
#include "models/placement.hpp"
#include "models/random_weights.hpp"

namespace troupe::cli {
namespace {

using kernels::dtype;

void add_engine_flags(CLI::App& parser, model_flags& flags) {
  parser
      .add_option("--max-model-len", flags.max_model_len,
                  "positions of one sequence, prompt and answer [the model's]")
      ->check(CLI::Range(std::int64_t{2}, models::config_limits::max_position_embeddings_max));
  parser.add_option("--max-num-seqs", flags.max_num_seqs, "sequences computed at once")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1024}))
      ->capture_default_str();
  parser.add_option("--max-num-batched-tokens", flags.max_num_batched_tokens, "tokens a step")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{65536}))
      ->capture_default_str();
  parser
      .add_option("--long-prefill-token-threshold", flags.long_prefill_token_threshold,
                  "tokens of one prompt a step [--max-num-batched-tokens]")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{65536}));
  parser
      .add_option("--kv-cache-memory", flags.kv_cache_memory,
                  "bytes of KV cache a rank, e.g. 512M or 4G [what the command needs]")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("BYTES");
  parser.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", flags.prefix_caching,
                  flags.prefix_caching ? "beginnings of prompts computed before are reused [on]"
                                       : "beginnings of prompts computed before are reused [off]");
  parser.add_flag("--async-scheduling,!--no-async-scheduling", flags.async_scheduling,
                  "a step is planned while the one before it runs [on]");
  parser.add_option("--block-size", flags.block_size, "tokens a KV block")
      ->check(CLI::IsMember({16}))
      ->capture_default_str();
}

dtype resolve_dtype(const model_flags& flags, const models::model_config& config) {
  if (flags.dtype == "float32") return dtype::float32;
  if (flags.dtype != "auto") return dtype::bfloat16;
  // A float16 checkpoint runs as bfloat16, which has no kernel-side range to overflow; so does a
  // float8 one.
  if (config.quantization) return dtype::bfloat16;
  return config.dtype == "float32" ? dtype::float32 : dtype::bfloat16;
}

// What matrices are rounded to; activations between them are bfloat16.
kernels::quantisation resolve_rounding(const model_flags& flags) {
  if (flags.dtype == "int8") return kernels::quantisation::int8_runs;
  if (flags.dtype == "int4") return kernels::quantisation::int4_groups;
  return kernels::quantisation::none;
}

base::result<kernels::instruction_path> resolve_path(const model_flags& flags, dtype type) {
  const auto supported = kernels::supported_paths(type);
  std::string names;
  for (const auto path : supported) {
    if (flags.numerics == "auto" || flags.numerics == to_string(path)) return path;
    names += (names.empty() ? "" : ", ") + std::string(to_string(path));
  }
  return base::fail(base::error_code::failed_precondition, "cli",
                    "--numerics " + flags.numerics + " does not run here for " +
                        std::string(to_string(type)) + "; this machine has " +
                        (names.empty() ? "no path (AVX2 is the least)" : names));
}

// Whether ranks compute on a GPU: asked for, or there is one and nothing says otherwise.
base::result<std::optional<kernels::cuda_probe>> resolve_device(const model_flags& flags,
                                                                bool computes,
                                                                std::string& why_cpu) {
  const auto named = kernels::parse_instruction_path(flags.numerics);
  if (flags.device == "cpu" || (named && !on_cuda(*named))) {
    return std::optional<kernels::cuda_probe>{};
  }
  if (is_integer(resolve_rounding(flags))) {
    if (flags.device == "cuda" || named) {
      return base::fail(base::error_code::unimplemented, "cli",
                        "--dtype " + flags.dtype +
                            " is computed on the CPU only: take bfloat16 or an FP8 checkpoint on "
                            "a GPU, or --device cpu");
    }
    why_cpu = flags.dtype + " is computed on the CPU only";
    return std::optional<kernels::cuda_probe>{};
  }
  auto probe = computes ? kernels::probe_cuda() : kernels::probe_cuda_apart();
  if (probe && named && probe->path != *named) {
    return base::fail(base::error_code::failed_precondition, "cli",
                      "--numerics " + flags.numerics + " does not run here; this GPU has " +
                          std::string(to_string(probe->path)));
  }
  if (probe) return std::optional(*probe);
  if (flags.device == "cuda" || named) {
    probe.error().message = "--device cuda: " + probe.error().message;
    return tl::unexpected(std::move(probe).error());
  }
  why_cpu = probe.error().message;
  return std::optional<kernels::cuda_probe>{};
}

// Ranks of a machine are neighbours, so they spread over its devices in turn.
base::result<void> open_device(opened_model& opened, int rank) {
  TROUPE_TRY(device, kernels::open_cuda({.ordinal = rank % opened.devices}));
  opened.device = std::move(device);
  return {};
}

}  // namespace

void add_model_flags(CLI::App& parser, model_flags& flags) {
  parser
      .add_option("MODEL", flags.model, "Hugging Face folder, or demo: the model in this program")
      ->required();
  parser
      .add_option("--tensor-parallel-size", flags.tensor_parallel_size, "ranks that share layers")
      ->check(CLI::IsMember({1, 2, 4, 8}))
      ->capture_default_str();
  parser.add_option("--pipeline-parallel-size", flags.pipeline_parallel_size, "stages of layers")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  parser.add_option("--threads-per-rank", flags.threads_per_rank, "[cores / ranks]")
      ->check(CLI::Range(1, 1024));
  parser
      .add_option("--dtype", flags.dtype,
                  "weights and activations; int8, int4: weights rounded while loading")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "int8", "int4"}))
      ->capture_default_str();
  parser.add_option("--kv-cache-dtype", flags.kv_cache_dtype, "K and V; auto: the weights'")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->capture_default_str();
  parser.add_option("--numerics", flags.numerics, "instruction path, to which the bits belong")
      ->check(CLI::IsMember({"auto", "amx_bf16", "avx512_bf16", "avx512", "avx2", "cuda_sm80",
                             "cuda_sm90", "cuda_sm100"}))
      ->capture_default_str();
  parser.add_option("--device", flags.device, "where to compute")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  parser
      .add_option(
          "--device-collectives", flags.device_collectives,
          "auto: from GPU to GPU where each rank of a host has one; nccl: also between hosts")
      ->check(CLI::IsMember({"auto", "host", "nccl"}))
      ->capture_default_str();
  parser
      .add_option("--load-format", flags.load_format,
                  "dummy: random weights in the shape of config.json, for benchmarks")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  parser.add_option("--log-level", flags.log_level, "what stderr gets")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  add_engine_flags(parser, flags);
}

engine::device_collectives collectives_of(const model_flags& flags) {
  using engine::device_collectives;
  if (flags.device_collectives == "host") return device_collectives::host;
  return flags.device_collectives == "nccl" ? device_collectives::nccl
                                            : device_collectives::automatic;
}

void add_ranks_flag(CLI::App& parser, model_flags& flags) {
  parser.add_option("--ranks", flags.ranks, "processes, as serve has them, or threads of this one")
      ->check(CLI::IsMember({"processes", "threads"}))
      ->capture_default_str();
}

base::result<opened_model> open_model(const model_flags& flags, std::optional<int> rank) {
  const models::model_folder folder = models::find_model(flags.model);
  TROUPE_TRY(config, models::read_config(folder));
  const int ranks = world_size(flags);
  TROUPE_TRY_VOID(models::check_placement(
      config, {.tp_size = flags.tensor_parallel_size, .pp_size = flags.pipeline_parallel_size}));
  const dtype type = resolve_dtype(flags, config);
  std::string why_cpu;
  const bool computes = rank.has_value() || flags.ranks == "threads";
  TROUPE_TRY(cuda, resolve_device(flags, computes, why_cpu));
  kernels::instruction_path path{};
  if (cuda) {
    path = cuda->path;
  } else {
    TROUPE_TRY(of_cpu, resolve_path(flags, type));
    path = of_cpu;
  }
  TROUPE_TRY(files, flags.load_format == "dummy" ? models::random_weights(config)
                                                 : models::checkpoint::open(folder));
  opened_model opened{
      .folder = folder,
      .files = std::move(files),
      .config = std::move(config),
      .profile = {.path = path, .weights = type, .kv_cache = type, .kept = resolve_rounding(flags)},
      .device = nullptr,
      .devices = cuda ? cuda->devices : 0,
      .why_cpu = std::move(why_cpu)};
  if (cuda && type == dtype::bfloat16 && opened.config.quantization) {
    opened.profile.kept = kernels::quantisation::float8_blocks;
  }
  if (flags.kv_cache_dtype == "float32") opened.profile.kv_cache = dtype::float32;
  if (flags.kv_cache_dtype == "bfloat16") opened.profile.kv_cache = dtype::bfloat16;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  opened.threads_per_rank =
      flags.threads_per_rank > 0 ? flags.threads_per_rank : std::max(1, cores / ranks);
  if (!flags.kv_cache_memory.empty()) {
    opened.kv_cache_bytes = std::stoll(flags.kv_cache_memory);  // AsSizeValue left digits only
  }
  if (cuda && computes) {
    TROUPE_TRY_VOID(open_device(opened, rank.value_or(0)));
  }
  return opened;
}

}  // namespace troupe::cli
