// Drives a planner as the engine does, without a model, and checks every plan against what a cache
// would hold: a shadow of each group's slots that remembers which position of which sequence was
// written last. `ahead`: each step is planned before the tokens of the one before it are known.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "engine/planner.hpp"
#include "kernels/ops.hpp"

namespace troupe::engine {

class planner_world {
 public:
  explicit planner_world(planner_options options, bool ahead = false)
      : plans_(std::move(options)), ahead_(ahead) {
    const auto slots =
        static_cast<std::size_t>(plans_.options().blocks_per_group * kernels::kv_block_tokens);
    cache_.assign(plans_.options().groups.size(), std::vector<written>(slots));
  }

  struct request {
    std::int64_t prompt_tokens = 1;
    std::int64_t max_tokens = 1;
    std::int64_t ends_after = 0;  // so many tokens, which the planner cannot know; 0: max_tokens
    // The first so many tokens of the prompt are those of this family, the rest its own.
    std::int64_t shared_tokens = 0;
    std::int32_t family = 0;
    cache_scope scope = {};
  };

  base::sequence_id add(const request& wanted) {
    auto sequence = std::make_unique<live_sequence>();
    const base::sequence_id id{next_id_++};
    sequence->id = id;
    sequence->log.params.max_tokens = wanted.max_tokens;
    sequence->log.scope = wanted.scope;
    for (std::int64_t i = 0; i < wanted.prompt_tokens; ++i) {
      const bool shared = i < wanted.shared_tokens;
      sequence->log.prompt_ids.push_back(shared ? -1 - wanted.family : token_at(id, i));
    }
    logs_[id.value] = sequence->log;
    ends_after_[id.value] = wanted.ends_after > 0 ? wanted.ends_after : wanted.max_tokens;
    live_.push_back(id);
    plans_.add(std::move(sequence));
    return id;
  }

  void remove(base::sequence_id id) {
    ASSERT_TRUE(plans_.remove(id));
    std::erase(live_, id);
  }

  // Plans, checks and carries out one step.
  step_plan step() {
    const std::uint64_t preemptions = plans_.preemptions();
    std::optional<base::sequence_id> oldest;  // that does more than wait for its last token
    std::vector<base::sequence_id> decoding;
    for (const base::sequence_id id : live_) {
      const live_sequence& sequence = *plans_.find(id);
      const auto emitted = static_cast<std::int64_t>(sequence.log.emitted_ids.size());
      if (emitted + sequence.pending >= sequence.log.params.max_tokens) continue;
      if (!oldest) oldest = id;
      if (sequence.computed > 0 && sequence.length() - sequence.computed == 1) {
        decoding.push_back(id);
      }
    }
    step_plan plan = plans_.next({1, 1});
    check_bounds(plan, oldest);
    if (plans_.preemptions() == preemptions) check_decoding(plan, decoding);
    if (!ahead_) {
      carry_out(plan);
      emit(plan);
      return plan;
    }
    // The step that ran ends; then the planned one runs, for those too that have ended.
    if (running_) emit(*std::exchange(running_, std::nullopt));
    name_last_tokens(plan);
    carry_out(plan);
    running_ = plan;
    return plan;
  }

  [[nodiscard]] planner& plans() noexcept { return plans_; }
  [[nodiscard]] const std::vector<base::sequence_id>& live() const noexcept { return live_; }
  [[nodiscard]] std::size_t ended() const noexcept { return ended_; }

 private:
  void carry_out(const step_plan& plan) {
    for (const planned_rows& rows : plan.sequences) write(rows);
    // Only now are they read: ranks may carry a step's sequences out in any order.
    for (const planned_rows& rows : plan.sequences) read(rows);
  }

  // As a rank does: the tokens of the step before, by slot.
  void name_last_tokens(step_plan& plan) {
    for (planned_rows& rows : plan.sequences) {
      if (!rows.last_token_slot) continue;
      ASSERT_LT(*rows.last_token_slot, last_tokens_.size());
      rows.token_ids.back() = last_tokens_[*rows.last_token_slot];
    }
  }

  void emit(const step_plan& plan) {
    last_tokens_.clear();
    for (const planned_rows& rows : plan.sequences) emit(rows);
  }

  // K and V at a position are a function of all tokens up to there (and, were they told apart by
  // the pool's user, of the scope): a number that stands for them.
  using written = std::uint64_t;
  written content(const sequence_log& log, std::int64_t position) const {
    std::uint64_t hash = 14695981039346656037ULL;
    const auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 1099511628211ULL; };
    for (const char letter : log.scope.tenant + "|" + log.scope.salt) {
      mix(static_cast<unsigned char>(letter));
    }
    for (std::int64_t i = 0; i <= position; ++i) {
      mix(static_cast<std::uint64_t>(static_cast<std::uint32_t>(log.token(i))) + 1);
    }
    return hash;
  }

  static std::int32_t token_at(base::sequence_id id, std::int64_t position) {
    return static_cast<std::int32_t>(id.value * 1000 + static_cast<std::uint64_t>(position));
  }

  void check_bounds(const step_plan& plan, std::optional<base::sequence_id> oldest) const {
    const planner_options& options = plans_.options();
    EXPECT_LE(plan.tokens(), options.max_num_batched_tokens);
    EXPECT_LE(static_cast<std::int64_t>(plan.sequences.size()), options.max_num_seqs);
    // What waits for its last token still has its blocks.
    EXPECT_TRUE(plan.sequences.empty() == !oldest || (plan.sequences.empty() && running_))
        << "work is left and nothing is planned";
    if (!plan.sequences.empty()) {
      EXPECT_EQ(plan.sequences.front().sequence, oldest) << "the oldest must progress";
    }
    std::set<std::uint64_t> seen;
    for (const planned_rows& rows : plan.sequences) {
      EXPECT_TRUE(seen.insert(rows.sequence.value).second);
      EXPECT_FALSE(rows.token_ids.empty());
      EXPECT_LE(static_cast<std::int64_t>(rows.token_ids.size()), options.prefill_chunk);
    }
  }

  // Of the sequences that were decoding none may be left out for lack of token budget, as long as
  // the budget has a token for each.
  void check_decoding(const step_plan& plan, const std::vector<base::sequence_id>& decoding) const {
    const planner_options& options = plans_.options();
    if (options.max_num_batched_tokens < options.max_num_seqs) return;
    for (const base::sequence_id id : decoding) {
      const bool planned =
          std::any_of(plan.sequences.begin(), plan.sequences.end(),
                      [id](const planned_rows& rows) { return rows.sequence == id; });
      EXPECT_TRUE(planned || plans_.free_blocks() == 0) << "sequence " << id.value << " waits";
    }
  }

  written& slot(std::size_t group, const planned_rows& rows, std::int64_t position) {
    const auto& table = rows.block_tables[group];
    const auto block = static_cast<std::size_t>(position / kernels::kv_block_tokens);
    EXPECT_LT(block, table.size());
    EXPECT_GE(table.at(block), 0);
    return cache_[group].at(static_cast<std::size_t>(table.at(block) * kernels::kv_block_tokens +
                                                     position % kernels::kv_block_tokens));
  }

  void write(const planned_rows& rows) {
    const std::uint64_t id = rows.sequence.value;
    const auto count = static_cast<std::int64_t>(rows.token_ids.size());
    std::int64_t& computed = computed_[id];
    // From where it stood, or from behind its cached beginning.
    const std::int64_t start = std::min(rows.stored, logs_[id].size() - 1);
    EXPECT_TRUE(rows.first_position == computed || rows.first_position == start)
        << "sequence " << id << " jumps from " << computed << " to " << rows.first_position;
    EXPECT_EQ(rows.prompt_length, static_cast<std::int64_t>(logs_[id].prompt_ids.size()));
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t position = rows.first_position + i;
      EXPECT_EQ(rows.token_ids[static_cast<std::size_t>(i)], logs_[id].token(position));
      for (std::size_t group = 0; group < cache_.size(); ++group) {
        if (position < rows.stored) continue;
        slot(group, rows, position) = content(logs_[id], position);
      }
    }
    computed = rows.first_position + count;
    EXPECT_EQ(rows.sample.has_value(), computed == logs_[id].size());
    if (rows.sample) {
      EXPECT_EQ(rows.sample->row.token_index, logs_[id].emitted_ids.size());
    }
  }

  void read(const planned_rows& rows) {
    const auto count = static_cast<std::int64_t>(rows.token_ids.size());
    for (std::size_t group = 0; group < cache_.size(); ++group) {
      const auto window = plans_.options().groups[group].visible();
      // The first row sees furthest back, the last one furthest ahead.
      const std::int64_t first =
          window ? std::max<std::int64_t>(0, rows.first_position - *window + 1) : 0;
      for (std::int64_t position = first; position < rows.first_position + count; ++position) {
        const written expected = content(logs_[rows.sequence.value], position);
        ASSERT_TRUE(slot(group, rows, position) == expected)
            << "sequence " << rows.sequence.value << " position " << position << " group " << group
            << " was overwritten";
      }
    }
  }

  void emit(const planned_rows& rows) {
    if (!rows.sample) return;
    const std::int32_t token = token_at(rows.sequence, logs_[rows.sequence.value].size());
    last_tokens_.push_back(token);
    live_sequence* const sequence = plans_.find(rows.sequence);
    if (sequence == nullptr) {
      EXPECT_TRUE(ahead_);  // it ended while this ran
      return;
    }
    plans_.accept(*sequence, token);
    logs_[rows.sequence.value] = sequence->log;
    const auto emitted = static_cast<std::int64_t>(sequence->log.emitted_ids.size());
    if (emitted < ends_after_[rows.sequence.value]) return;
    remove(rows.sequence);
    ++ended_;
  }

  planner plans_;
  const bool ahead_;
  std::optional<step_plan> running_;
  std::vector<std::int32_t> last_tokens_;             // of the step that ended last, by slot
  std::map<std::uint64_t, std::int64_t> ends_after_;  // by sequence
  std::vector<std::vector<written>> cache_;           // one a group
  std::map<std::uint64_t, sequence_log> logs_;
  std::map<std::uint64_t, std::int64_t> computed_;
  std::vector<base::sequence_id> live_;  // oldest first
  std::uint64_t next_id_ = 1;
  std::size_t ended_ = 0;
};

}  // namespace troupe::engine
