#include "engine/step_inputs.hpp"

#include "base/check.hpp"
#include "models/rope.hpp"

namespace troupe::engine {
namespace {

std::int64_t slot_of(const std::vector<std::int32_t>& table, std::int64_t position) {
  const auto block = static_cast<std::size_t>(position / kernels::kv_block_tokens);
  TROUPE_CHECK(block < table.size() && table[block] >= 0);
  return table[block] * kernels::kv_block_tokens + position % kernels::kv_block_tokens;
}

}  // namespace

step_inputs::step_inputs(const step_plan& plan, std::size_t groups) : groups_(groups) {
  std::int64_t row = 0;
  for (const planned_rows& rows : plan.sequences) {
    TROUPE_CHECK(rows.block_tables.size() == groups && !rows.token_ids.empty());
    const auto count = static_cast<std::int64_t>(rows.token_ids.size());
    token_ids_.insert(token_ids_.end(), rows.token_ids.begin(), rows.token_ids.end());
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t position = rows.first_position + i;
      positions_.push_back(position);
      rope_lengths_.push_back(models::rope::length_of(position, rows.prompt_length));
    }
    for (std::size_t i = 0; i < groups; ++i) {
      for (std::int64_t j = 0; j < count; ++j) {
        groups_[i].slots.push_back(slot_of(rows.block_tables[i], rows.first_position + j));
      }
      groups_[i].sequences.push_back({row, count, rows.first_position, rows.block_tables[i]});
    }
    if (rows.sample) logits_rows_.push_back(static_cast<std::int32_t>(row + count - 1));
    row += count;
  }
  for (const group& of : groups_) group_views_.push_back({of.slots, of.sequences});
  batch_ = {token_ids_, positions_, rope_lengths_, group_views_, logits_rows_};
}

}  // namespace troupe::engine
