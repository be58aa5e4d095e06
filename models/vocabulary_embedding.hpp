// Rows of the vocabulary, input and output side, sharded along the vocabulary grid.
//
// Input: each row comes from the rank that owns it (a gather, never a sum with zeros). Output: each
// rank gives the logits of its own rows. A tied model uses one packed table for both.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "models/model.hpp"
#include "models/weight_reader.hpp"

namespace troupe::models {

class vocabulary_embedding {
 public:
  // Errors: those of the reader.
  [[nodiscard]] static base::result<vocabulary_embedding> load(weight_reader& reader,
                                                               const model_config& config,
                                                               placement where, std::string name);

  // Shape: ids [tokens], each in the vocabulary -> x float32 [tokens][hidden_size]
  // Errors: those of the collectives.
  [[nodiscard]] base::result<void> embed(step_context& context,
                                         std::span<const std::int32_t> token_ids,
                                         const kernels::tensor_view& x) const;

  // Shape: hidden [rows][hidden_size], the model's dtype -> logits float32 [rows][rank's rows]
  void project(step_context& context, const kernels::tensor_view& hidden,
               const kernels::tensor_view& logits) const;

 private:
  [[nodiscard]] int owner_of(std::int32_t token_id) const noexcept;

  grid cut_;
  placement where_;
  range mine_;
  kernels::packed_tensor table_;
};

}  // namespace troupe::models
