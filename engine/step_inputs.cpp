#include "engine/step_inputs.hpp"

#include <algorithm>
#include <type_traits>

#include "base/check.hpp"
#include "kernels/arena.hpp"
#include "models/rope.hpp"

namespace troupe::engine {
namespace {

std::int64_t slot_of(const std::vector<std::int32_t>& table, std::int64_t position) {
  const auto block = static_cast<std::size_t>(position / kernels::kv_block_tokens);
  TROUPE_CHECK(block < table.size() && table[block] >= 0);
  return table[block] * kernels::kv_block_tokens + position % kernels::kv_block_tokens;
}

// Hands out aligned pieces one after the other; without memory it only counts.
class pieces {
 public:
  explicit pieces(std::span<std::byte> memory) : memory_(memory) {}

  template <class T>
  std::span<T> take(std::int64_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    constexpr std::size_t align = kernels::arena::alignment_bytes;
    const std::size_t begin = used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + align - 1) / align * align;
    if (memory_.empty()) return {};
    TROUPE_CHECK(used_ <= memory_.size());
    return {reinterpret_cast<T*>(memory_.data() + begin), static_cast<std::size_t>(count)};
  }
  [[nodiscard]] std::size_t used() const noexcept { return used_; }

 private:
  std::span<std::byte> memory_;
  std::size_t used_ = 0;
};

}  // namespace

step_shape step_shape::of(const step_plan& plan, std::size_t groups) {
  step_shape shape{.tokens = plan.tokens(),
                   .sequences = static_cast<std::int64_t>(plan.sequences.size()),
                   .groups = static_cast<std::int64_t>(groups)};
  for (const planned_rows& rows : plan.sequences) {
    if (rows.sample) ++shape.sampled;
    if (rows.scored) shape.scored += static_cast<std::int64_t>(rows.scored->token_ids.size());
    for (const auto& table : rows.block_tables) {
      shape.table_blocks = std::max(shape.table_blocks, static_cast<std::int64_t>(table.size()));
    }
  }
  return shape;
}

step_shape step_shape::padded(std::int64_t to_sequences, std::int64_t to_blocks) const {
  TROUPE_CHECK(to_sequences >= sequences && to_blocks >= table_blocks);
  step_shape larger = *this;
  larger.tokens += to_sequences - sequences;
  larger.sampled += to_sequences - sequences;
  larger.sequences = to_sequences;
  larger.table_blocks = to_blocks;
  return larger;
}

std::size_t step_inputs::bytes(const step_shape& shape, std::size_t half) {
  pieces count({});
  count.take<std::int32_t>(shape.tokens);
  count.take<float>(shape.tokens * static_cast<std::int64_t>(half));
  count.take<float>(shape.tokens * static_cast<std::int64_t>(half));
  count.take<std::int32_t>(shape.sampled + shape.scored);
  count.take<kernels::sampling_row>(shape.sampled + shape.scored);
  for (std::int64_t i = 0; i < shape.groups; ++i) {
    count.take<std::int64_t>(shape.tokens);
    count.take<kernels::sequence_rows>(shape.sequences);
    count.take<std::int32_t>(shape.sequences * shape.table_blocks);
  }
  return count.used();
}

step_inputs::step_inputs(const step_plan& plan, std::span<const std::int32_t> last_tokens,
                         const step_shape& shape, angle_table& angles, std::span<std::byte> memory,
                         spare_blocks spare)
    : shape_(shape), spare_(spare), groups_(static_cast<std::size_t>(shape.groups)) {
  TROUPE_CHECK(!memory.empty());
  pieces from(memory);
  const auto half = static_cast<std::int64_t>(angles.half());
  token_ids_ = from.take<std::int32_t>(shape.tokens);
  const std::span<float> cos = from.take<float>(shape.tokens * half);
  const std::span<float> sin = from.take<float>(shape.tokens * half);
  logits_rows_ = from.take<std::int32_t>(shape.sampled + shape.scored);
  sampling_ = from.take<kernels::sampling_row>(shape.sampled + shape.scored);
  for (group& of : groups_) {
    of.slots = from.take<std::int64_t>(shape.tokens);
    of.sequences = from.take<kernels::sequence_rows>(shape.sequences);
    of.tables = from.take<std::int32_t>(shape.sequences * shape.table_blocks);
  }
  positions_.reserve(static_cast<std::size_t>(shape.tokens));
  rope_lengths_.reserve(static_cast<std::size_t>(shape.tokens));
  for (const planned_rows& rows : plan.sequences) add(rows, last_tokens);
  while (static_cast<std::int64_t>(sequence_) < shape.sequences) add_padding();
  TROUPE_CHECK(static_cast<std::int64_t>(positions_.size()) == shape.tokens);
  TROUPE_CHECK(static_cast<std::int64_t>(sampled_) == shape.sampled);
  TROUPE_CHECK(static_cast<std::int64_t>(scored_) == shape.scored);
  angles.fill(positions_, rope_lengths_, cos, sin);
  for (const group& of : groups_) {
    group_views_.push_back({of.slots, of.sequences});
    group_sequences_.push_back(of.sequences);
  }
  batch_ = {token_ids_, cos, sin, group_views_, logits_rows_};
}

std::span<const std::int32_t> step_inputs::copy_table(
    group& into, const std::vector<std::int32_t>& table) const {
  const auto blocks = static_cast<std::size_t>(shape_.table_blocks);
  TROUPE_CHECK(table.size() <= blocks);
  const auto place = into.tables.subspan(sequence_ * blocks, blocks);
  const auto rest = std::copy(table.begin(), table.end(), place.begin());
  if (!spare_.pads) return place.first(table.size());
  std::fill(rest, place.end(), spare_.first);
  return place;
}

void step_inputs::add(const planned_rows& rows, std::span<const std::int32_t> last_tokens) {
  TROUPE_CHECK(rows.block_tables.size() == groups_.size() && !rows.token_ids.empty());
  const auto row = static_cast<std::int64_t>(positions_.size());
  const auto count = static_cast<std::int64_t>(rows.token_ids.size());
  std::copy(rows.token_ids.begin(), rows.token_ids.end(), token_ids_.begin() + row);
  if (rows.last_token_slot) {
    TROUPE_CHECK(*rows.last_token_slot < last_tokens.size());
    token_ids_[static_cast<std::size_t>(row + count - 1)] = last_tokens[*rows.last_token_slot];
  }
  TROUPE_CHECK(rows.stored <= rows.first_position + 1);  // one row at most is not written
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t position = rows.first_position + i;
    positions_.push_back(position);
    rope_lengths_.push_back(models::rope::length_of(position, rows.prompt_length));
  }
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const std::vector<std::int32_t>& table = rows.block_tables[i];
    for (std::int64_t j = 0; j < count; ++j) {
      const std::int64_t position = rows.first_position + j;
      groups_[i].slots[static_cast<std::size_t>(row + j)] =
          position < rows.stored ? spare_slot() : slot_of(table, position);
    }
    groups_[i].sequences[sequence_] = {row, count, rows.first_position,
                                       copy_table(groups_[i], table)};
  }
  if (rows.sample) {
    logits_rows_[sampled_] = static_cast<std::int32_t>(row + count - 1);
    sampling_[sampled_++] = sampling_row_of(*rows.sample);
  }
  if (rows.scored) add_scored(row, *rows.scored);
  ++sequence_;
}

void step_inputs::add_scored(std::int64_t first_row, const scored_rows& rows) {
  for (std::size_t i = 0; i < rows.token_ids.size(); ++i) {
    const auto at = static_cast<std::size_t>(shape_.sampled) + scored_++;
    logits_rows_[at] =
        static_cast<std::int32_t>(first_row + rows.first_row + static_cast<std::int64_t>(i));
    sampling_[at] = {};
  }
}

void step_inputs::add_padding() {
  TROUPE_CHECK(spare_.pads);
  const auto row = static_cast<std::int64_t>(positions_.size());
  token_ids_[static_cast<std::size_t>(row)] = 0;
  positions_.push_back(0);
  rope_lengths_.push_back(1);
  for (group& of : groups_) {
    of.slots[static_cast<std::size_t>(row)] = spare_slot();
    of.sequences[sequence_] = {row, 1, 0, copy_table(of, {})};
  }
  logits_rows_[sampled_] = static_cast<std::int32_t>(row);
  sampling_[sampled_++] = {};
  ++sequence_;
}

}  // namespace troupe::engine
