// What a model's steps must move and compute at least: the denominators of bench's shares.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/numerics.hpp"
#include "models/config.hpp"

namespace troupe::cli {

// Multiply-adds count as two. Attention counts the positions a query sees, itself included.
struct work_model {
  work_model(const models::model_config& config, const kernels::numerics_profile& profile);

  // Floating-point operations of one prompt of `tokens`, the last one's logits included.
  [[nodiscard]] double prefill_flop(std::int64_t tokens) const;
  // Bytes that a decode step reads: every weight once, and K and V of each sequence.
  // `context`: positions in the cache of each of `sequences`.
  [[nodiscard]] double decode_bytes(std::int64_t context, std::int64_t sequences) const;
  // Floating-point operations of such a step.
  [[nodiscard]] double decode_flop(std::int64_t context, std::int64_t sequences) const;

 private:
  [[nodiscard]] double seen(std::int64_t tokens) const;      // over layers, of one query head
  [[nodiscard]] double visible(std::int64_t context) const;  // over layers, by the last token

  std::vector<std::int64_t> windows_;  // one a layer; 0: all
  double layer_weights_ = 0.0;         // elements, of all layers
  double output_weights_ = 0.0;        // elements of the output embedding
  double query_elements_ = 0.0;        // heads * head_dim
  double kv_elements_ = 0.0;           // K and V of one position and layer
  double bytes_per_layer_weight_ = 0.0;
  double bytes_per_output_weight_ = 0.0;
  double bytes_per_kv_element_ = 0.0;
};

struct spread {
  double median = 0.0;
  double min = 0.0;
  double max = 0.0;
};

// Shape: values not empty.
[[nodiscard]] spread spread_of(std::vector<double> values);

}  // namespace troupe::cli
