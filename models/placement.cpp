#include "models/placement.hpp"

#include <string>

namespace troupe::models {

base::result<void> check_placement(const model_config& config, placement where) {
  const auto refuse = [](std::string why) {
    return base::fail(base::error_code::invalid_argument, "models", std::move(why));
  };
  const int tp = where.tp_size;
  if (tp != 1 && tp != 2 && tp != 4 && tp != 8) {
    return refuse("tensor-parallel size " + std::to_string(tp) + " is not 1, 2, 4 or 8");
  }
  if (tp > config.num_attention_heads) {
    return refuse("tensor-parallel size " + std::to_string(tp) + " is above the model's " +
                  std::to_string(config.num_attention_heads) +
                  " query heads, so a rank would have none; use a smaller size");
  }
  if (where.pp_size < 1 || where.pp_size > config.num_hidden_layers) {
    return refuse("pipeline-parallel size " + std::to_string(where.pp_size) +
                  " is not between 1 and the model's " + std::to_string(config.num_hidden_layers) +
                  " layers");
  }
  return {};
}

range stage_layers(const model_config& config, placement where) noexcept {
  const std::int64_t layers = config.num_hidden_layers;
  return {where.pp_rank * layers / where.pp_size, (where.pp_rank + 1) * layers / where.pp_size};
}

grid head_grid(const model_config& config) noexcept {
  return {.size = config.num_attention_heads, .unit = 1};
}

grid mlp_grid(const model_config& config) noexcept {
  return {.size = config.intermediate_size, .unit = mlp_unit};
}

grid vocabulary_grid(const model_config& config) noexcept {
  return {.size = config.vocab_size, .unit = vocabulary_unit};
}

range rank_kv_heads(const model_config& config, placement where) noexcept {
  const range heads = head_grid(config).rank_range(where.tp_rank, where.tp_size);
  const std::int64_t group = config.num_attention_heads / config.num_key_value_heads;
  return {heads.begin / group, (heads.end + group - 1) / group};
}

std::vector<std::int64_t> rank_head_run_ends(const model_config& config, placement where) {
  std::vector<std::int64_t> ends = head_grid(config).rank_run_ends(where.tp_rank, where.tp_size);
  for (std::int64_t& end : ends) end *= config.head_dim;
  return ends;
}

}  // namespace troupe::models
