#include "engine/engine.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/check.hpp"

namespace troupe::engine {

engine::engine(executor& ranks, engine_options options)
    : ranks_(ranks), options_(std::move(options)), planner_(options_.planner) {
  TROUPE_CHECK(options_.max_model_len > 0 && options_.vocab_size > 0);
}

base::result<void> engine::check(const sequence_log& log) const {
  TROUPE_TRY_VOID(check_params(log.params));
  const auto refuse = [](base::error_code code, const std::string& what, bool retryable = false) {
    return base::fail(code, "engine", what, retryable);
  };
  if (log.prompt_ids.empty()) {
    return refuse(base::error_code::invalid_argument, "the prompt has no tokens");
  }
  for (std::int64_t position = 0; position < log.size(); ++position) {
    const std::int32_t id = log.token(position);
    if (id < 0 || id >= options_.vocab_size) {
      return refuse(base::error_code::invalid_argument,
                    "token id " + std::to_string(id) + " at position " + std::to_string(position) +
                        " is outside the vocabulary of " + std::to_string(options_.vocab_size));
    }
  }
  if (finished(log, options_.eos_token_ids, options_.max_model_len)) {
    return refuse(base::error_code::invalid_argument, "the sequence has ended already");
  }
  if (log.size() >= options_.max_model_len) {
    return refuse(base::error_code::invalid_argument,
                  "the prompt has " + std::to_string(log.size()) + " tokens; max_model_len is " +
                      std::to_string(options_.max_model_len) + " and must leave room for one more");
  }
  const std::int64_t left =
      log.params.max_tokens - static_cast<std::int64_t>(log.emitted_ids.size());
  // In this order: max_tokens may be as large as its type allows.
  const std::int64_t positions =
      log.size() + std::clamp<std::int64_t>(left, 0, options_.max_model_len - log.size());
  if (planner_.blocks_needed(positions) > planner_.options().blocks_per_group) {
    return refuse(base::error_code::resource_exhausted,
                  "a sequence of " + std::to_string(positions) +
                      " positions does not fit the KV cache of " +
                      std::to_string(planner_.options().blocks_per_group) +
                      " blocks of 16; give more --kv-cache-memory or fewer max_tokens");
  }
  if (static_cast<std::int64_t>(planner_.sequences()) >= options_.max_queued_seqs) {
    return refuse(base::error_code::resource_exhausted,
                  "the queue is full: " + std::to_string(options_.max_queued_seqs) +
                      " sequences are waiting or running",
                  true);
  }
  return {};
}

base::result<base::sequence_id> engine::add(sequence_log log) {
  TROUPE_TRY_VOID(check(log));
  auto sequence = std::make_unique<live_sequence>();
  sequence->id = base::sequence_id{next_id_++};
  sequence->log = std::move(log);
  const base::sequence_id id = sequence->id;
  planner_.add(std::move(sequence));
  return id;
}

bool engine::remove(base::sequence_id id) { return planner_.remove(id); }

const sequence_log* engine::log(base::sequence_id id) noexcept {
  const live_sequence* sequence = planner_.find(id);
  return sequence == nullptr ? nullptr : &sequence->log;
}

engine_event engine::accept(sampled_token token) {
  live_sequence* const sequence = planner_.find(token.sequence);
  TROUPE_CHECK(sequence != nullptr);
  engine_event event{.token = std::move(token), .finished = std::nullopt, .failed = std::nullopt};
  if (!event.token.finite) {
    event.failed = base::error{base::error_code::internal,
                               "the model's logits are not finite numbers; its weights or the "
                               "machine may be damaged",
                               "engine"};
    planner_.remove(event.token.sequence);
    return event;
  }
  sequence->log.emitted_ids.push_back(event.token.token_id);
  event.finished = finished(sequence->log, options_.eos_token_ids, options_.max_model_len);
  if (event.finished) planner_.remove(event.token.sequence);
  return event;
}

base::result<std::vector<engine_event>> engine::step() {
  const step_plan plan = planner_.next(ranks_.epoch());
  std::vector<engine_event> events;
  if (plan.sequences.empty()) {
    // The oldest sequence always finds room (check() saw to it), so only an idle engine plans
    // nothing.
    TROUPE_CHECK(idle());
    return events;
  }
  TROUPE_TRY(result, ranks_.run(plan));
  ++steps_;
  for (sampled_token& token : result.tokens) events.push_back(accept(std::move(token)));
  return events;
}

}  // namespace troupe::engine
