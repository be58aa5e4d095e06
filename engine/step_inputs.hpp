// A step plan as the flat arrays that a forward pass reads, laid out in a queue's step memory.
//
//   const step_shape shape = step_shape::of(plan, groups);
//   TROUPE_TRY(memory, queue.begin_step(step_inputs::bytes(shape, angles.half())));
//   step_inputs inputs(plan, last_tokens, shape, angles, memory, {.first = kv_blocks});
//   queue.commit_step(inputs.sequences());
//   model.forward(context, inputs.batch(), hidden);
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/angle_table.hpp"
#include "engine/block_pool.hpp"
#include "engine/step_plan.hpp"
#include "kernels/queue.hpp"
#include "models/model.hpp"

namespace troupe::engine {

// Counts that decide where every array lies. Two steps of equal shapes have the same layout, so a
// recorded step can be replayed on the other's inputs.
struct step_shape {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  std::int64_t sampled = 0;
  std::int64_t scored = 0;
  std::int64_t table_blocks = 0;  // entries of each table
  std::int64_t groups = 0;
  friend auto operator<=>(const step_shape&, const step_shape&) = default;

  [[nodiscard]] static step_shape of(const step_plan& plan, std::size_t groups);
  // Room for more sequences of one sampled token each, and for longer tables. The added sequences
  // write to and read from spare blocks alone.
  [[nodiscard]] step_shape padded(std::int64_t to_sequences, std::int64_t to_blocks) const;
};

// Blocks of every group that no sequence has, with a place for each sequence of a step: K and V go
// there that nobody may read.
struct spare_blocks {
  std::int32_t first = 0;
  // The shape may be padded, and every table has all of its `table_blocks` entries.
  bool pads = false;

  [[nodiscard]] static constexpr std::int64_t count(std::int64_t max_num_seqs) noexcept {
    return kv_blocks_for(max_num_seqs);
  }
};

class step_inputs {
 public:
  // Units: bytes of step memory; `half`: angles a token.
  [[nodiscard]] static std::size_t bytes(const step_shape& shape, std::size_t half);

  // `last_tokens`: of the step before, by slot. The plan's tables must have `shape.groups` entries
  // each. Lifetime: memory outlives the inputs.
  step_inputs(const step_plan& plan, std::span<const std::int32_t> last_tokens,
              const step_shape& shape, angle_table& angles, std::span<std::byte> memory,
              spare_blocks spare);
  step_inputs(const step_inputs&) = delete;
  step_inputs& operator=(const step_inputs&) = delete;

  [[nodiscard]] const step_shape& shape() const noexcept { return shape_; }
  [[nodiscard]] const models::step_batch& batch() const noexcept { return batch_; }
  // One for each of batch().logits_rows: those that are sampled, then those that are scored.
  [[nodiscard]] std::span<const kernels::sampling_row> sampling() const noexcept {
    return sampling_;
  }
  // Of each group.
  [[nodiscard]] std::span<const std::span<const kernels::sequence_rows>> sequences()
      const noexcept {
    return group_sequences_;
  }
  [[nodiscard]] std::span<const std::int64_t> positions() const noexcept { return positions_; }
  [[nodiscard]] std::span<const std::int64_t> rope_lengths() const noexcept {
    return rope_lengths_;
  }

 private:
  struct group {
    std::span<std::int64_t> slots;
    std::span<kernels::sequence_rows> sequences;
    std::span<std::int32_t> tables;  // [sequences][table_blocks]
  };
  void add(const planned_rows& rows, std::span<const std::int32_t> last_tokens);
  void add_scored(std::int64_t first_row, const scored_rows& rows);
  void add_padding();
  // Of the sequence that is being added.
  [[nodiscard]] std::int64_t spare_slot() const noexcept {
    return spare_.first * kernels::kv_block_tokens + static_cast<std::int64_t>(sequence_);
  }
  [[nodiscard]] std::span<const std::int32_t> copy_table(
      group& into, const std::vector<std::int32_t>& table) const;

  step_shape shape_;
  spare_blocks spare_;
  std::span<std::int32_t> token_ids_;
  std::span<std::int32_t> logits_rows_;
  std::span<kernels::sampling_row> sampling_;
  std::vector<group> groups_;
  std::vector<std::int64_t> positions_;
  std::vector<std::int64_t> rope_lengths_;
  std::size_t sequence_ = 0;  // added so far
  std::size_t sampled_ = 0;
  std::size_t scored_ = 0;
  std::vector<models::kv_group_batch> group_views_;
  std::vector<std::span<const kernels::sequence_rows>> group_sequences_;
  models::step_batch batch_;
};

}  // namespace troupe::engine
