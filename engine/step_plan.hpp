// The step plan's types under the engine's name; they live where everything on the wire does.
#pragma once

#include "kernels/vocabulary/vocabulary_types.hpp"
#include "schemas/step_plan.hpp"

namespace troupe::engine {

using schemas::following_changes;
using schemas::planned_rows;
using schemas::sample_request;
using schemas::sampled_token;
using schemas::scored_rows;
using schemas::step_plan;
using schemas::step_result;
using schemas::token_logprob;

// The kernels' own form of a draw.
[[nodiscard]] inline kernels::sampling_row sampling_row_of(const sample_request& request) noexcept {
  return {.temperature = request.row.temperature,
          .seed = request.row.seed,
          .choice = request.row.choice,
          .token_index = request.row.token_index};
}

}  // namespace troupe::engine
