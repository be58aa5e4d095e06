#include "actors/gang/join_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

namespace troupe::actors {

namespace {

constexpr std::size_t printable_max = 120;

// One field of two descriptions; says so when it differs.
struct comparison {
  std::string who;
  std::optional<std::string> differs = {};

  template <class Value>
  void equal(std::string_view field, const Value& theirs, const Value& ours) {
    if (differs || theirs == ours) return;
    if constexpr (std::is_same_v<Value, std::string>) {
      differs = fmt::format("{} differs in {}: {}, the leader has {}", who, field,
                            printable(theirs), printable(ours));
    } else {
      differs = fmt::format("{} differs in {}: {}, the leader has {}", who, field, theirs, ours);
    }
  }
};

// The first eight digits tell two models apart.
std::string short_digest(const std::array<std::uint8_t, 32>& digest) {
  return fmt::format("{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
}

void compare_layouts(comparison& check, const schemas::gang_layout& theirs,
                     const schemas::gang_layout& ours) {
  check.equal("tensor_parallel_size", theirs.tensor_parallel_size, ours.tensor_parallel_size);
  check.equal("pipeline_parallel_size", theirs.pipeline_parallel_size, ours.pipeline_parallel_size);
  check.equal("max_model_len", theirs.max_model_len, ours.max_model_len);
  check.equal("max_num_seqs", theirs.max_num_seqs, ours.max_num_seqs);
  check.equal("max_num_batched_tokens", theirs.max_num_batched_tokens, ours.max_num_batched_tokens);
  check.equal("kv_blocks", theirs.kv_blocks, ours.kv_blocks);
  check.equal("block_size", theirs.block_size, ours.block_size);
  check.equal("dtype", theirs.weights_dtype, ours.weights_dtype);
  check.equal("kv_cache_dtype", theirs.kv_cache_dtype, ours.kv_cache_dtype);
  check.equal("data_plane", theirs.data_plane, ours.data_plane);
}

}  // namespace

std::string printable(std::string_view text) {
  std::string clean(text.substr(0, printable_max));
  std::replace_if(
      clean.begin(), clean.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return clean;
}

std::string name_of(const schemas::join_request& asks) {
  return fmt::format("rank {} ({})", asks.rank.value, printable(asks.node));
}

std::optional<std::string> why_refused(const schemas::join_request& asks, const join_rules& rules) {
  const schemas::join_request& leader = rules.leader;
  comparison check{.who = name_of(asks)};
  check.equal("protocol version", asks.protocol, leader.protocol);
  check.equal("build", asks.build_id, leader.build_id);
  if (check.differs) {
    return *check.differs + "; run the same binary on every node";
  }
  if (asks.rank.value < 0 || asks.rank.value >= rules.world_size) {
    return fmt::format("{} is not in a gang of {} ranks; check --nnodes, --node-rank and the sizes",
                       check.who, rules.world_size);
  }
  compare_layouts(check, asks.layout, leader.layout);
  if (check.differs) return *check.differs + "; give every node the same flags";
  if (asks.model_description_digest != leader.model_description_digest) {
    return fmt::format(
        "{} differs in model: {}, the leader has {} (digest); give every node the "
        "same model folder",
        check.who, short_digest(asks.model_description_digest),
        short_digest(leader.model_description_digest));
  }
  check.equal("kernel version", asks.kernel_version, leader.kernel_version);
  if (check.differs) return *check.differs + "; run the same binary on every node";
  return std::nullopt;
}

std::vector<std::string> common_paths(std::span<const std::string> ours,
                                      std::span<const std::string> theirs) {
  std::vector<std::string> common;
  for (const std::string& path : ours) {
    if (std::find(theirs.begin(), theirs.end(), path) != theirs.end()) common.push_back(path);
  }
  return common;
}

std::string no_common_path(const schemas::join_request& asks, std::span<const std::string> paths) {
  return fmt::format(
      "{} offers none of the gang's instruction paths {}: it offers {}; give every node the same "
      "--numerics, or none",
      name_of(asks), fmt::join(paths, ", "),
      printable(fmt::format("{}", fmt::join(asks.instruction_paths, ", "))));
}

}  // namespace troupe::actors
