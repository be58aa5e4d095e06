#include "engine/planner.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"

namespace troupe::engine {
namespace {

constexpr std::int32_t no_block = -1;

}  // namespace

// Of two sets of allowed tokens, what is in both.
std::optional<logit_changes> changes_of(const live_sequence& sequence) {
  std::optional<logit_changes> changes;
  if (sequence.changes) changes = sequence.changes->next(sequence.log);
  if (!sequence.constraint) return changes;
  if (!changes) changes.emplace();
  if (changes->allowed.empty()) {
    changes->allowed = sequence.mask;
    return changes;
  }
  changes->allowed.resize(sequence.mask.size());
  for (std::size_t i = 0; i < sequence.mask.size(); ++i) changes->allowed[i] &= sequence.mask[i];
  return changes;
}

planner::planner(planner_options options) : options_(std::move(options)) {
  TROUPE_CHECK(options_.max_num_batched_tokens >= 1 && options_.max_num_seqs >= 1);
  TROUPE_CHECK(options_.prefill_chunk >= 1 && !options_.groups.empty());
  for (std::size_t i = 0; i < options_.groups.size(); ++i) {
    pools_.emplace_back(options_.blocks_per_group);
  }
}

void planner::add(std::unique_ptr<live_sequence> sequence) {
  sequence->block_tables.resize(options_.groups.size());
  // What is found in the cache has no logits.
  const bool scored = sequence->log.params.prompt_logprobs >= 0;
  if (options_.prefix_cache.enabled && !sequence->log.scope.none && !scored) {
    sequence->chain.emplace(options_.prefix_cache, sequence->log);
    const auto next = static_cast<std::uint32_t>(tenants_.size());
    sequence->tenant = tenants_.try_emplace(sequence->log.scope.tenant, next).first->second;
  }
  logit_change_source changes(sequence->log, options_.eos_token_ids);
  if (changes.active()) sequence->changes = std::move(changes);
  by_id_[sequence->id.value] = sequence.get();
  sequences_.push_back(std::move(sequence));
}

std::size_t planner::running() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(sequences_.begin(), sequences_.end(),
                    [](const auto& sequence) { return sequence->computed > 0; }));
}

bool planner::is_running(base::sequence_id id) const noexcept {
  const auto found = by_id_.find(id.value);
  return found != by_id_.end() && found->second->computed > 0;
}

live_sequence* planner::find(base::sequence_id id) noexcept {
  const auto found = by_id_.find(id.value);
  return found == by_id_.end() ? nullptr : found->second;
}

bool planner::remove(base::sequence_id id) {
  const auto found = std::find_if(sequences_.begin(), sequences_.end(),
                                  [id](const auto& sequence) { return sequence->id == id; });
  if (found == sequences_.end()) return false;
  release(**found);
  by_id_.erase(id.value);
  sequences_.erase(found);
  return true;
}

std::int64_t planner::free_blocks() const noexcept {
  std::int64_t least = options_.blocks_per_group;
  for (const block_pool& pool : pools_) {
    least = std::min(least, pool.free_blocks());
  }
  return least;
}

// The most blocks from the start whose K and V are in the cache: all of them of a group with full
// attention, those still visible of a sliding one.
std::int64_t planner::cached_blocks(const live_sequence& sequence) const {
  const auto blocks = static_cast<std::int64_t>(sequence.chain->size());
  std::vector<std::int64_t> in_a_row(pools_.size(), 0);  // of each group, up to the block at hand
  std::int64_t most = 0;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const auto index = static_cast<std::size_t>(block);
    const block_tokens tokens = prefix_chain::tokens_of(sequence.log, index);
    bool usable = true;
    for (std::size_t group = 0; group < pools_.size(); ++group) {
      const bool here = pools_[group].holds(sequence.chain->key(index), tokens);
      in_a_row[group] = here ? in_a_row[group] + 1 : 0;
      const std::int64_t first = first_visible_block(sequence, group, block + 1);
      usable = usable && in_a_row[group] >= block + 1 - first;
      if (!here && !options_.groups[group].visible()) return most;  // nothing behind it counts
    }
    if (usable) most = block + 1;
  }
  return most;
}

// The first block that the query after `blocks` blocks of the sequence sees.
std::int64_t planner::first_visible_block(const live_sequence& sequence, std::size_t group,
                                          std::int64_t blocks) const {
  const auto window = options_.groups[group].visible();
  if (!window) return 0;
  const std::int64_t query = std::min(blocks * kernels::kv_block_tokens, sequence.length() - 1);
  return std::max<std::int64_t>(0, query - *window + 1) / kernels::kv_block_tokens;
}

void planner::take_over_prefix(live_sequence& sequence) {
  sequence.chain->extend(sequence.log, sequence.log.size());
  const std::int64_t blocks = cached_blocks(sequence);
  for (std::size_t group = 0; group < pools_.size(); ++group) {
    auto& table = sequence.block_tables[group];
    const std::int64_t first = first_visible_block(sequence, group, blocks);
    table.assign(static_cast<std::size_t>(std::min(first, blocks)), no_block);
    for (auto block = static_cast<std::size_t>(first); block < static_cast<std::size_t>(blocks);
         ++block) {
      const auto shared = pools_[group].share(sequence.chain->key(block),
                                              prefix_chain::tokens_of(sequence.log, block));
      TROUPE_CHECK(shared.has_value());
      table.push_back(*shared);
    }
  }
  sequence.stored = blocks * kernels::kv_block_tokens;
  sequence.kept_blocks = blocks;
  // The last token's logits are wanted even where its K and V are there.
  sequence.computed = std::min(sequence.stored, sequence.length() - 1);
}

void planner::note_start(live_sequence& sequence) {
  if (sequence.started) return;
  sequence.started = true;
  if (!sequence.chain) return;
  prefixes_.queried += static_cast<std::uint64_t>(sequence.log.size());
  prefixes_.hit += static_cast<std::uint64_t>(sequence.computed);
  if (!sequence.cached_tokens) {
    sequence.cached_tokens =
        std::min(sequence.computed, static_cast<std::int64_t>(sequence.log.prompt_ids.size()));
  }
}

// The blocks that planned tokens fill may be found from now on, once all of them are known: a step
// writes K and V of a layer before it reads any.
void planner::keep_full_blocks(live_sequence& sequence) {
  const std::int64_t known = std::min(sequence.computed, sequence.log.size());
  if (!sequence.chain || known / kernels::kv_block_tokens <= sequence.kept_blocks) return;
  sequence.chain->extend(sequence.log, known);
  const auto full = static_cast<std::size_t>(known / kernels::kv_block_tokens);
  for (auto block = static_cast<std::size_t>(
           std::exchange(sequence.kept_blocks, static_cast<std::int64_t>(full)));
       block < full; ++block) {
    const block_content content{.key = sequence.chain->key(block),
                                .tokens = prefix_chain::tokens_of(sequence.log, block),
                                .tenant = sequence.tenant};
    for (std::size_t group = 0; group < pools_.size(); ++group) {
      const std::int32_t held = sequence.block_tables[group][block];
      if (held != no_block) pools_[group].keep(held, content);
    }
  }
}

bool planner::reserve(live_sequence& sequence, std::int64_t positions) {
  const auto wanted = static_cast<std::size_t>(kv_blocks_for(positions));
  for (std::size_t group = 0; group < pools_.size(); ++group) {
    auto& table = sequence.block_tables[group];
    while (table.size() < wanted) {
      const std::optional<std::int32_t> block = pools_[group].take();
      if (!block) return false;  // what was taken stays with the sequence and is used or released
      table.push_back(*block);
    }
  }
  return true;
}

void planner::drop_out_of_window(live_sequence& sequence) {
  for (std::size_t group = 0; group < pools_.size(); ++group) {
    const auto window = options_.groups[group].visible();
    if (!window) continue;
    // The next query stands at `computed` and sees positions above computed - window.
    const std::int64_t unseen = std::max<std::int64_t>(0, sequence.computed - *window + 1);
    auto& table = sequence.block_tables[group];
    const auto whole =
        std::min(static_cast<std::size_t>(unseen / kernels::kv_block_tokens), table.size());
    for (std::size_t i = whole; i-- > 0 && table[i] != no_block;) {
      pools_[group].give_back(table[i]);
      table[i] = no_block;
    }
  }
}

void planner::release(live_sequence& sequence) {
  for (std::size_t group = 0; group < pools_.size(); ++group) {
    // The end of a prefix is of no use without its beginning: it goes first.
    auto& table = sequence.block_tables[group];
    for (; !table.empty(); table.pop_back()) {
      if (table.back() != no_block) pools_[group].give_back(table.back());
    }
  }
  sequence.computed = 0;
  sequence.stored = 0;
  sequence.kept_blocks = 0;
  sequence.started = false;
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

planned_rows planner::plan_rows(live_sequence& sequence, std::int64_t tokens) {
  planned_rows rows;
  rows.sequence = sequence.id;
  rows.first_position = sequence.computed;
  rows.prompt_length = static_cast<std::int64_t>(sequence.log.prompt_ids.size());
  rows.stored = sequence.stored;
  note_start(sequence);
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int64_t position = sequence.computed + i;
    if (position == sequence.log.size()) rows.last_token_slot = sequence.slot;
    rows.token_ids.push_back(rows.last_token_slot ? 0 : sequence.log.token(position));
  }
  rows.block_tables = sequence.block_tables;
  rows.scored = scored_of(sequence, sequence.computed, tokens);
  sequence.computed += tokens;
  keep_full_blocks(sequence);
  if (sequence.computed == sequence.length()) rows.sample = request_of(sequence);
  return rows;
}

std::optional<scored_rows> planner::scored_of(live_sequence& sequence, std::int64_t from,
                                              std::int64_t tokens) {
  const sequence_log& log = sequence.log;
  const auto prompt = static_cast<std::int64_t>(log.prompt_ids.size());
  const bool wanted = log.params.prompt_logprobs >= 0 && log.params.choice == 0;
  // After a preemption some are there already; after the first token all have been told.
  const std::int64_t first = std::max(from, sequence.scored - 1);
  const std::int64_t end = std::min(from + tokens, prompt - 1);
  if (!wanted || !log.emitted_ids.empty() || first >= end) return std::nullopt;
  scored_rows rows{
      .first_row = first - from, .logprobs = log.params.prompt_logprobs, .token_ids = {}};
  for (std::int64_t position = first; position < end; ++position) {
    rows.token_ids.push_back(log.token(position + 1));
  }
  sequence.scored = end + 1;
  return rows;
}

sample_request planner::request_of(const live_sequence& sequence) {
  const sampling_params& params = sequence.log.params;
  const auto pending = static_cast<std::uint64_t>(sequence.pending);
  sample_request request{.row = {.temperature = params.temperature,
                                 .seed = params.seed,
                                 .choice = params.choice,
                                 .token_index = sequence.log.emitted_ids.size() + pending},
                         .top_p = params.top_p,
                         .top_k = params.top_k,
                         .logprobs = params.logprobs,
                         .min_p = params.min_p};
  if (pending == 0) {
    request.changes = changes_of(sequence);
  } else {
    request.changes_follow = sequence.changes || sequence.constraint;
  }
  return request;
}

void planner::accept(live_sequence& sequence, std::int32_t token_id) {
  TROUPE_CHECK(sequence.pending > 0);
  --sequence.pending;
  sequence.log.emitted_ids.push_back(token_id);
  if (sequence.changes) sequence.changes->accept(token_id);
  keep_full_blocks(sequence);
}

// The token that is being drawn is its last, whatever it is.
bool planner::ends_with_pending(const live_sequence& sequence) const noexcept {
  const auto emitted = static_cast<std::int64_t>(sequence.log.emitted_ids.size());
  return sequence.pending > 0 && (emitted + sequence.pending >= sequence.log.params.max_tokens ||
                                  sequence.length() >= options_.max_model_len);
}

step_plan planner::next(base::epoch_id epoch) {
  step_plan plan{.epoch = epoch, .step = steps_++, .sequences = {}};
  std::int64_t budget = options_.max_num_batched_tokens;
  std::uint32_t slots = 0;
  for (std::size_t i = 0; i < sequences_.size() && budget > 0; ++i) {
    if (static_cast<std::int64_t>(plan.sequences.size()) == options_.max_num_seqs) break;
    live_sequence& sequence = *sequences_[i];
    if (ends_with_pending(sequence)) continue;
    TROUPE_CHECK(sequence.pending <= 1);
    if (sequence.chain && !sequence.started) take_over_prefix(sequence);
    // Before this step's rows are planned: within a step nobody else may write there.
    drop_out_of_window(sequence);
    const std::int64_t left = sequence.length() - sequence.computed;
    const std::int64_t tokens = std::min({left, options_.prefill_chunk, budget});
    // Younger ones than this are not planned yet, so their blocks may go.
    while (!reserve(sequence, sequence.computed + tokens)) {
      if (preempt_youngest(i + 1)) continue;
      // Older ones hold the pool. What has not started yet looks for its beginning again later.
      if (!sequence.started) release(sequence);
      return plan;
    }
    plan.sequences.push_back(plan_rows(sequence, tokens));
    if (plan.sequences.back().sample) {
      ++sequence.pending;
      sequence.slot = slots++;
    }
    budget -= tokens;
  }
  return plan;
}

}  // namespace troupe::engine
