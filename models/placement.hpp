// Where one rank stands in its gang, and what of the model that makes its share.
//
// rank = pp_rank * tp_size + tp_rank. Layers are dealt to pipeline stages in order; heads, MLP
// inputs and vocabulary rows to tensor-parallel ranks along the canonical grid (models/grid.hpp).
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.hpp"
#include "models/config.hpp"
#include "models/grid.hpp"

namespace troupe::models {

struct placement {
  int tp_rank = 0;
  int tp_size = 1;
  int pp_rank = 0;
  int pp_size = 1;

  [[nodiscard]] constexpr bool first_stage() const noexcept { return pp_rank == 0; }
  [[nodiscard]] constexpr bool last_stage() const noexcept { return pp_rank == pp_size - 1; }
};

// Errors: invalid_argument with the reason: tp_size not 1, 2, 4 or 8, or above the number of query
// heads; pp_size above the number of layers.
[[nodiscard]] base::result<void> check_placement(const model_config& config, placement where);

// Layers [floor(s * L / p), floor((s + 1) * L / p)) of stage s.
[[nodiscard]] range stage_layers(const model_config& config, placement where) noexcept;

[[nodiscard]] grid head_grid(const model_config& config) noexcept;        // unit: one query head
[[nodiscard]] grid mlp_grid(const model_config& config) noexcept;         // unit: 32 inputs
[[nodiscard]] grid vocabulary_grid(const model_config& config) noexcept;  // unit: 64 rows

// KV heads that the rank's query heads read; heads at a boundary are replicated.
[[nodiscard]] range rank_kv_heads(const model_config& config, placement where) noexcept;

// Ends of the rank's head runs in elements of the attention output (heads * head_dim).
[[nodiscard]] std::vector<std::int64_t> rank_head_run_ends(const model_config& config,
                                                           placement where);

}  // namespace troupe::models
