// What the tests of both machines share: descriptions of ranks, picking effects apart.
#pragma once

#include <fmt/format.h>

#include <string>
#include <variant>
#include <vector>

#include "actors/machine.hpp"
#include "schemas/control_message.hpp"

namespace troupe::actors {

using namespace std::chrono_literals;

inline constexpr std::uint64_t incarnation = 77;
inline base::epoch_id epoch(std::uint64_t number, std::uint64_t life = incarnation) {
  return {.incarnation = life, .number = number};
}

inline schemas::join_request description(int rank) {
  return {.protocol = 1,
          .build_id = "build-a",
          .rank = {rank},
          .node = fmt::format("node-{}", rank),
          .layout = {.tensor_parallel_size = 2,
                     .pipeline_parallel_size = 1,
                     .max_model_len = 4096,
                     .max_num_seqs = 16,
                     .max_num_batched_tokens = 512,
                     .kv_blocks = 100,
                     .block_size = 16,
                     .weights_dtype = "bfloat16",
                     .kv_cache_dtype = "bfloat16",
                     .data_plane = "tls"},
          .model_description_digest = {1, 2, 3},
          .instruction_paths = {"amx_bf16", "avx512", "avx2"},
          .kernel_version = 1};
}

// All effects of one kind, in order.
template <class Effect, class Any>
std::vector<Effect> all_of(const std::vector<Any>& effects) {
  std::vector<Effect> found;
  for (const Any& effect : effects) {
    if (const auto* one = std::get_if<Effect>(&effect)) found.push_back(*one);
  }
  return found;
}

template <class Effect, class Any>
int count_of(const std::vector<Any>& effects) {
  return static_cast<int>(all_of<Effect>(effects).size());
}

}  // namespace troupe::actors
