// The gated feed-forward block: down(act(gate(x)) * up(x)), sharded along the intermediate
// dimension.
//
// gate and up are one column-parallel product; down is row-parallel over runs of 32 inputs, so its
// result is this rank's share of a sum that tree-adds over the ranks.
#pragma once

#include <string>
#include <vector>

#include "models/model.hpp"
#include "models/weight_reader.hpp"

namespace troupe::models {

class gated_mlp {
 public:
  // `prefix`: e.g. "model.layers.3.mlp.". Errors: those of the reader.
  [[nodiscard]] static base::result<gated_mlp> load(weight_reader& reader,
                                                    const model_config& config, placement where,
                                                    const std::string& prefix);

  // Shape: normed [tokens][hidden_size], the model's dtype -> partial float32 [tokens][hidden_size]
  void forward(step_context& context, const kernels::tensor_view& normed,
               const kernels::tensor_view& partial) const;

  // Added once, after the sum over ranks; empty when there is none.
  [[nodiscard]] std::span<const float> output_bias() const noexcept { return down_bias_; }

  [[nodiscard]] static std::size_t arena_bytes(const model_config& config, placement where,
                                               kernels::dtype type, std::int64_t tokens);

 private:
  std::int64_t intermediate_ = 0;  // this rank's
  kernels::gate_kind gate_ = kernels::gate_kind::silu;
  kernels::packed_tensor gate_up_;  // gate rows, then up rows
  kernels::packed_tensor down_;
  std::vector<float> gate_up_bias_;
  std::vector<float> down_bias_;
};

}  // namespace troupe::models
