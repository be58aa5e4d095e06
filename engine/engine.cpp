#include "engine/engine.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/check.hpp"

namespace troupe::engine {

namespace {

planner_options planner_options_of(const engine_options& options) {
  planner_options made = options.planner;
  made.eos_token_ids = options.eos_token_ids;
  made.max_model_len = options.max_model_len;
  return made;
}

}  // namespace

engine::engine(executor& ranks, engine_options options)
    : ranks_(ranks),
      options_(std::move(options)),
      planner_(planner_options_of(options_)),
      pipeline_(ranks) {
  TROUPE_CHECK(options_.max_model_len > 0 && options_.vocab_size > 0);
}

base::result<base::sequence_id> engine::add(sequence_log log) {
  TROUPE_TRY_VOID(check_admission(log, options_.limits()));
  if (static_cast<std::int64_t>(planner_.sequences()) >= options_.max_queued_seqs) {
    return base::fail(base::error_code::resource_exhausted, "engine",
                      "the queue is full: " + std::to_string(options_.max_queued_seqs) +
                          " sequences are waiting or running",
                      true);
  }
  auto sequence = std::make_unique<live_sequence>();
  sequence->id = base::sequence_id{next_id_++};
  sequence->log = std::move(log);
  TROUPE_TRY_VOID(constrain(*sequence));
  const base::sequence_id id = sequence->id;
  planner_.add(std::move(sequence));
  return id;
}

bool engine::remove(base::sequence_id id) { return planner_.remove(id); }

const sequence_log* engine::log(base::sequence_id id) noexcept {
  const live_sequence* sequence = planner_.find(id);
  return sequence == nullptr ? nullptr : &sequence->log;
}

std::optional<engine_event> engine::accept(sampled_token token) {
  live_sequence* const sequence = planner_.find(token.sequence);
  if (sequence == nullptr) return std::nullopt;
  engine_event event{.token = std::move(token), .finished = std::nullopt, .failed = std::nullopt};
  if (sequence->log.emitted_ids.empty()) {
    event.cached_tokens = sequence->cached_tokens;
    event.prompt_logprobs = std::move(sequence->prompt_logprobs);
  }
  const auto fail = [&](base::error error) {
    event.failed = std::move(error);
    planner_.remove(event.token.sequence);
    return std::move(event);
  };
  if (!event.token.finite) {
    return fail({base::error_code::internal,
                 "the model's logits are not finite numbers; its weights or the "
                 "machine may be damaged",
                 "engine"});
  }
  if (!event.token.allowed) {
    return fail({base::error_code::invalid_argument,
                 "the request's parameters forbid every token of the vocabulary", "engine"});
  }
  planner_.accept(*sequence, event.token.token_id);
  event.finished = finished(sequence->log, options_.eos_token_ids, options_.max_model_len);
  if (!event.finished && sequence->constraint) {
    // An end token ends what follows a grammar, whatever else the request ignores.
    const auto& ends = options_.eos_token_ids;
    if (std::find(ends.begin(), ends.end(), event.token.token_id) != ends.end()) {
      event.finished = finish_reason::stop;
    } else if (auto advanced = advance_constraint(*sequence, event.token.token_id); !advanced) {
      return fail(std::move(advanced).error());
    }
  }
  if (event.finished) planner_.remove(event.token.sequence);
  return event;
}

base::result<void> engine::constrain(live_sequence& sequence) const {
  if (!sequence.log.params.grammar) return {};
  if (!options_.make_constraint) {
    return base::fail(base::error_code::unimplemented, "engine",
                      "this model has no tokenizer, so no answer can follow a grammar");
  }
  TROUPE_TRY(constraint, options_.make_constraint(*sequence.log.params.grammar));
  for (const std::int32_t id : sequence.log.emitted_ids) {
    TROUPE_TRY_VOID(constraint->accept(id));
  }
  sequence.constraint = std::move(constraint);
  sequence.mask.resize(static_cast<std::size_t>((options_.vocab_size + 31) / 32));
  return sequence.constraint->mask(sequence.mask);
}

base::result<void> engine::advance_constraint(live_sequence& sequence, std::int32_t token_id) {
  TROUPE_TRY_VOID(sequence.constraint->accept(token_id));
  return sequence.constraint->mask(sequence.mask);
}

engine::open_step engine::open_step_of(const step_plan& plan) {
  open_step open;
  for (const planned_rows& rows : plan.sequences) {
    const auto end = rows.first_position + static_cast<std::int64_t>(rows.token_ids.size());
    open.prefill_tokens += static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, std::min(end, rows.prompt_length) - rows.first_position));
    if (rows.sample && rows.sample->changes_follow) open.following.push_back(rows.sequence);
  }
  return open;
}

bool engine::begin_step() {
  step_plan plan = planner_.next(ranks_.epoch());
  if (plan.sequences.empty()) return false;
  open_steps_.push_back(open_step_of(plan));
  pipeline_.submit(std::move(plan));
  return true;
}

base::result<std::vector<engine_event>> engine::step() {
  if (failed_) return tl::unexpected(*failed_);
  std::vector<engine_event> events;
  if (open_steps_.empty() && !begin_step()) {
    // The oldest sequence always finds room (check() saw to it), so only an idle engine plans
    // nothing.
    TROUPE_CHECK(idle());
    return events;
  }
  if (options_.plan_ahead) static_cast<void>(begin_step());
  base::result<step_result> result = pipeline_.wait();
  if (!result) {
    failed_ = result.error();
    return tl::unexpected(*failed_);
  }
  ++steps_;
  prefill_tokens_ += open_steps_.front().prefill_tokens;
  open_steps_.pop_front();
  for (sampled_token& token : result->scored) {
    live_sequence* const sequence = planner_.find(token.sequence);
    if (sequence != nullptr) sequence->prompt_logprobs.push_back(std::move(token));
  }
  for (sampled_token& token : result->tokens) {
    if (auto event = accept(std::move(token))) events.push_back(*std::move(event));
  }
  provide_changes();
  return events;
}

void engine::provide_changes() {
  if (open_steps_.empty() || open_steps_.front().following.empty()) return;
  std::vector<logit_changes> changes;
  for (const base::sequence_id id : open_steps_.front().following) {
    const live_sequence* const sequence = planner_.find(id);
    // What has ended meanwhile is drawn for all the same; nobody will look at it.
    changes.push_back(sequence == nullptr ? logit_changes{}
                                          : changes_of(*sequence).value_or(logit_changes{}));
  }
  pipeline_.provide(std::move(changes));
}

}  // namespace troupe::engine
