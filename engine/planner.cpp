#include "engine/planner.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"

namespace troupe::engine {
namespace {

constexpr std::int32_t no_block = -1;

}  // namespace

planner::planner(planner_options options) : options_(std::move(options)) {
  TROUPE_CHECK(options_.max_num_batched_tokens >= 1 && options_.max_num_seqs >= 1);
  TROUPE_CHECK(options_.prefill_chunk >= 1 && !options_.groups.empty());
  for (std::size_t i = 0; i < options_.groups.size(); ++i) {
    allocators_.emplace_back(options_.blocks_per_group);
  }
}

void planner::add(std::unique_ptr<live_sequence> sequence) {
  sequence->block_tables.resize(options_.groups.size());
  sequences_.push_back(std::move(sequence));
}

std::size_t planner::running() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(sequences_.begin(), sequences_.end(),
                    [](const auto& sequence) { return sequence->computed > 0; }));
}

live_sequence* planner::find(base::sequence_id id) noexcept {
  for (const auto& sequence : sequences_) {
    if (sequence->id == id) return sequence.get();
  }
  return nullptr;
}

bool planner::remove(base::sequence_id id) {
  const auto found = std::find_if(sequences_.begin(), sequences_.end(),
                                  [id](const auto& sequence) { return sequence->id == id; });
  if (found == sequences_.end()) return false;
  release(**found);
  sequences_.erase(found);
  return true;
}

std::int64_t planner::free_blocks() const noexcept {
  std::int64_t least = options_.blocks_per_group;
  for (const block_allocator& allocator : allocators_) {
    least = std::min(least, allocator.free_blocks());
  }
  return least;
}

bool planner::reserve(live_sequence& sequence, std::int64_t positions) {
  const auto wanted = static_cast<std::size_t>(kv_blocks_for(positions));
  for (std::size_t group = 0; group < allocators_.size(); ++group) {
    auto& table = sequence.block_tables[group];
    while (table.size() < wanted) {
      const std::optional<std::int32_t> block = allocators_[group].take();
      if (!block) return false;  // what was taken stays with the sequence and is used or released
      table.push_back(*block);
    }
  }
  return true;
}

void planner::drop_out_of_window(live_sequence& sequence) {
  for (std::size_t group = 0; group < allocators_.size(); ++group) {
    const auto window = options_.groups[group].visible();
    if (!window) continue;
    // The next query stands at `computed` and sees positions above computed - window.
    const std::int64_t unseen = std::max<std::int64_t>(0, sequence.computed - *window + 1);
    auto& table = sequence.block_tables[group];
    const auto whole =
        std::min(static_cast<std::size_t>(unseen / kernels::kv_block_tokens), table.size());
    for (std::size_t i = whole; i-- > 0 && table[i] != no_block;) {
      allocators_[group].give_back(table[i]);
      table[i] = no_block;
    }
  }
}

void planner::release(live_sequence& sequence) {
  for (std::size_t group = 0; group < allocators_.size(); ++group) {
    for (const std::int32_t block : sequence.block_tables[group]) {
      if (block != no_block) allocators_[group].give_back(block);
    }
    sequence.block_tables[group].clear();
  }
  sequence.computed = 0;
}

bool planner::preempt_youngest(std::size_t first) {
  for (std::size_t i = sequences_.size(); i-- > first;) {
    const auto& tables = sequences_[i]->block_tables;
    if (std::all_of(tables.begin(), tables.end(), [](const auto& of) { return of.empty(); })) {
      continue;
    }
    release(*sequences_[i]);
    ++preemptions_;
    return true;
  }
  return false;
}

planned_rows planner::plan_rows(live_sequence& sequence, std::int64_t tokens) const {
  planned_rows rows;
  rows.sequence = sequence.id;
  rows.first_position = sequence.computed;
  rows.prompt_length = static_cast<std::int64_t>(sequence.log.prompt_ids.size());
  for (std::int64_t i = 0; i < tokens; ++i) {
    rows.token_ids.push_back(sequence.log.token(sequence.computed + i));
  }
  rows.block_tables = sequence.block_tables;
  sequence.computed += tokens;
  if (sequence.computed == sequence.log.size()) {
    const sampling_params& params = sequence.log.params;
    rows.sample = sample_request{.row = {.temperature = params.temperature,
                                         .seed = params.seed,
                                         .choice = params.choice,
                                         .token_index = sequence.log.emitted_ids.size()},
                                 .top_p = params.top_p,
                                 .top_k = params.top_k,
                                 .logprobs = params.logprobs};
  }
  return rows;
}

step_plan planner::next(base::epoch_id epoch) {
  step_plan plan{.epoch = epoch, .step = steps_++, .sequences = {}};
  std::int64_t budget = options_.max_num_batched_tokens;
  for (std::size_t i = 0; i < sequences_.size() && budget > 0; ++i) {
    if (static_cast<std::int64_t>(plan.sequences.size()) == options_.max_num_seqs) break;
    live_sequence& sequence = *sequences_[i];
    // Before this step's rows are planned: within a step nobody else may write there.
    drop_out_of_window(sequence);
    const std::int64_t left = sequence.log.size() - sequence.computed;
    const std::int64_t tokens = std::min({left, options_.prefill_chunk, budget});
    // Younger ones than this are not planned yet, so their blocks may go.
    while (!reserve(sequence, sequence.computed + tokens)) {
      if (!preempt_youngest(i + 1)) return plan;  // older ones hold the pool
    }
    plan.sequences.push_back(plan_rows(sequence, tokens));
    budget -= tokens;
  }
  return plan;
}

}  // namespace troupe::engine
