// Rotary frequencies in transformers' float32 arithmetic. Internal to models/rope*.cpp.
// Source: transformers modeling_rope_utils.py, the function named at each.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/config.hpp"

namespace troupe::models {

struct rope_frequencies {
  std::vector<float> inv_freq;  // [head_dim/2]
  float attention_scaling = 1.0F;
};

// 1 / base^(2i / head_dim) for i < head_dim/2 = out.size(). (compute_default_rope_parameters)
void fill_inv_freq(float base, std::span<float> out);

// At model load, i.e. up to max_position_embeddings.
[[nodiscard]] rope_frequencies initial_frequencies(const model_config& config);

struct dynamic_rope {
  double rope_theta = 0.0;
  double factor = 1.0;
  std::int64_t trained_length = 0;
};

// The base for a longer sequence. (_compute_dynamic_ntk_parameters with seq_len a tensor)
[[nodiscard]] float dynamic_base(const dynamic_rope& rope, std::int64_t length,
                                 std::int64_t head_dim);

}  // namespace troupe::models
