// Grouped-query attention of a decoder layer, sharded by query heads.
//
// q, k and v are one column-parallel product; the output projection is row-parallel over the runs
// of heads, so its result is this rank's share of a sum that tree-adds over the ranks. Options
// switch what architectures differ in: biases, norms of q and k, window.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/model.hpp"
#include "models/weight_reader.hpp"

namespace troupe::models {

struct attention_options {
  bool qk_norm = false;  // RMS norm of every query and key head before the rotation (Qwen3)
  std::optional<std::int64_t> window;
};

// cos and sin of the step's tokens, [tokens][head_dim / 2].
struct rotation {
  std::span<const float> cos;
  std::span<const float> sin;
};

class attention_block {
 public:
  // `prefix`: e.g. "model.layers.3.self_attn.". Errors: those of the reader.
  [[nodiscard]] static base::result<attention_block> load(weight_reader& reader,
                                                          const model_config& config,
                                                          placement where,
                                                          const std::string& prefix,
                                                          attention_options options);

  // Shape: normed [tokens][hidden_size], the model's dtype -> partial float32 [tokens][hidden_size]
  void forward(step_context& context, const kernels::tensor_view& normed, const rotation& rotate,
               const kernels::kv_view& cache, const kv_group_batch& batch,
               const kernels::tensor_view& partial) const;

  // Added once, after the sum over ranks; empty when there is none.
  [[nodiscard]] std::span<const float> output_bias() const noexcept { return output_bias_; }

  [[nodiscard]] static std::size_t arena_bytes(const model_config& config, placement where,
                                               kernels::dtype type, std::int64_t tokens);

 private:
  attention_options options_;
  std::int64_t head_dim_ = 0;
  std::int64_t query_heads_ = 0;
  std::int64_t kv_heads_ = 0;
  float scale_ = 1.0F;
  float epsilon_ = 0.0F;
  std::vector<std::int32_t> kv_head_of_;
  kernels::packed_tensor projection_;  // q rows, then k rows, then v rows
  kernels::packed_tensor output_;
  std::vector<float> projection_bias_;
  std::vector<float> output_bias_;
  std::vector<float> query_norm_;
  std::vector<float> key_norm_;
};

}  // namespace troupe::models
