// A step plan as the flat arrays that a forward pass reads.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/step_plan.hpp"
#include "models/model.hpp"

namespace troupe::engine {

// Owns what models::step_batch borrows. Lifetime: as long as the batch is used.
class step_inputs {
 public:
  // The plan's tables must have `groups` entries each.
  step_inputs(const step_plan& plan, std::size_t groups);
  step_inputs(const step_inputs&) = delete;
  step_inputs& operator=(const step_inputs&) = delete;

  [[nodiscard]] const models::step_batch& batch() const noexcept { return batch_; }

 private:
  struct group {
    std::vector<std::int64_t> slots;
    std::vector<kernels::sequence_rows> sequences;
  };
  std::vector<std::int32_t> token_ids_;
  std::vector<std::int64_t> positions_;
  std::vector<std::int64_t> rope_lengths_;
  std::vector<std::int32_t> logits_rows_;
  std::vector<group> groups_;
  std::vector<models::kv_group_batch> group_views_;
  models::step_batch batch_;
};

}  // namespace troupe::engine
