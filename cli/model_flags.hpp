// The flags that every command with a model shares, and what they resolve to.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "engine/collectives_path.hpp"
#include "kernels/device.hpp"
#include "kernels/numerics.hpp"
#include "models/checkpoint.hpp"
#include "models/config.hpp"
#include "models/model_folder.hpp"

namespace troupe::cli {

struct model_flags {
  std::string model;
  std::string dtype = "auto";
  std::string kv_cache_dtype = "auto";
  std::string numerics = "auto";
  std::string device = "auto";
  std::string device_collectives = "auto";
  std::string load_format = "auto";
  std::string ranks = "processes";
  int tensor_parallel_size = 1;
  int pipeline_parallel_size = 1;
  int threads_per_rank = 0;  // 0: cores / ranks
  std::int64_t max_model_len = 0;
  std::int64_t max_num_seqs = 16;
  std::int64_t max_num_batched_tokens = 512;
  std::int64_t long_prefill_token_threshold = 0;  // 0: max_num_batched_tokens
  std::string kv_cache_memory;  // bytes, with K, M or G; empty: what the command needs
  std::int64_t block_size = 16;
  bool prefix_caching = true;
  bool async_scheduling = true;
  std::string log_level = "info";
};

// Ranks of the gang.
[[nodiscard]] inline int world_size(const model_flags& flags) noexcept {
  return flags.tensor_parallel_size * flags.pipeline_parallel_size;
}

// Of --device-collectives.
[[nodiscard]] engine::device_collectives collectives_of(const model_flags& flags);

// Adds MODEL and the flags, with environment variables and --config.
void add_model_flags(CLI::App& parser, model_flags& flags);

// For the commands that run the engine themselves.
void add_ranks_flag(CLI::App& parser, model_flags& flags);

// A model folder that was opened and checked, not loaded.
struct opened_model {
  models::model_folder folder;
  models::checkpoint files;
  models::model_config config;
  kernels::numerics_profile profile;
  // Where this process computes: null on the CPU, and in a process that does not compute.
  std::shared_ptr<kernels::device> device;
  int devices = 0;      // of this machine, when its ranks compute on them
  std::string why_cpu;  // with --device auto: what speaks against a GPU
  int threads_per_rank = 1;
  std::int64_t kv_cache_bytes = 0;  // a rank; 0: what the command needs
};

// `rank`: this process is that rank, and opens its device; without it only ranks that are threads
// do. Errors: those of read_config and checkpoint::open; failed_precondition (no such instruction
// path or device).
[[nodiscard]] base::result<opened_model> open_model(const model_flags& flags,
                                                    std::optional<int> rank = std::nullopt);

}  // namespace troupe::cli
