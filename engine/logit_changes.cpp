#include "engine/logit_changes.hpp"

#include <algorithm>

namespace troupe::engine {
namespace {

// The logit of a token of this range, or nullptr.
float* find(std::span<float> logits, std::int32_t first, std::int32_t token_id) noexcept {
  const std::int64_t at = std::int64_t{token_id} - first;
  return at >= 0 && at < static_cast<std::int64_t>(logits.size())
             ? &logits[static_cast<std::size_t>(at)]
             : nullptr;
}

constexpr std::int64_t word_bits = 32;

bool allows(std::span<const std::uint32_t> allowed, std::int64_t token_id) noexcept {
  const auto word = static_cast<std::size_t>(token_id / word_bits);
  return word < allowed.size() && ((allowed[word] >> (token_id % word_bits)) & 1U) != 0;
}

void penalise(const logit_changes& changes, std::int32_t first, std::span<float> logits) {
  for (const schemas::token_count& seen : changes.counts) {
    float* const logit = find(logits, first, seen.token_id);
    if (logit == nullptr) continue;
    float value = *logit;
    value = value > 0.0F ? value / changes.repetition_penalty : value * changes.repetition_penalty;
    if (seen.in_answer > 0) {
      const float often = changes.frequency_penalty * static_cast<float>(seen.in_answer);
      value = value - often;
      value = value - changes.presence_penalty;
    }
    *logit = value;
  }
}

void mask(std::span<const std::uint32_t> allowed, std::int32_t first, std::span<float> logits) {
  const auto count = static_cast<std::int64_t>(logits.size());
  for (std::int64_t i = 0; i < count; ++i) {
    if (!allows(allowed, first + i)) logits[static_cast<std::size_t>(i)] = forbidden_logit;
  }
}

bool ends_with(const std::vector<std::int32_t>& emitted, std::span<const std::int32_t> tail) {
  return tail.size() <= emitted.size() &&
         std::equal(tail.begin(), tail.end(),
                    emitted.end() - static_cast<std::ptrdiff_t>(tail.size()));
}

}  // namespace

void apply(const logit_changes& changes, std::int32_t first_token_id, std::span<float> logits) {
  for (const schemas::token_bias& bias : changes.bias) {
    float* const logit = find(logits, first_token_id, bias.token_id);
    if (logit != nullptr) *logit = *logit + bias.bias;
  }
  penalise(changes, first_token_id, logits);
  for (const std::int32_t id : changes.forbidden) {
    float* const logit = find(logits, first_token_id, id);
    if (logit != nullptr) *logit = forbidden_logit;
  }
  if (!changes.allowed.empty()) mask(changes.allowed, first_token_id, logits);
}

logit_change_source::logit_change_source(const sequence_log& log,
                                         std::span<const std::int32_t> eos_token_ids)
    : params_(log.params.logits) {
  if (!params_) return;
  active_ = !(*params_ == logit_params{});
  counts_prompt_ = params_->repetition_penalty != 1.0F;
  if (params_->min_tokens > 0) {
    end_ids_.assign(eos_token_ids.begin(), eos_token_ids.end());
    const auto& stops = log.params.stop_token_ids;
    end_ids_.insert(end_ids_.end(), stops.begin(), stops.end());
  }
  for (const std::int32_t id : params_->allowed_token_ids) {
    const auto word = static_cast<std::size_t>(id / word_bits);
    if (word >= allowed_.size()) allowed_.resize(word + 1);
    allowed_[word] |= 1U << (id % word_bits);
  }
  if (counts_prompt_) {
    for (const std::int32_t id : log.prompt_ids) count(id, 0);
  }
  for (const std::int32_t id : log.emitted_ids) accept(id);
}

void logit_change_source::count(std::int32_t token_id, std::int32_t in_answer) {
  const auto [found, added] = place_.try_emplace(token_id, counts_.size());
  if (added) counts_.push_back({token_id, 0});
  counts_[found->second].in_answer += in_answer;
}

void logit_change_source::accept(std::int32_t token_id) {
  if (!active_) return;
  const bool counts =
      counts_prompt_ || params_->frequency_penalty != 0.0F || params_->presence_penalty != 0.0F;
  if (counts) count(token_id, 1);
}

logit_changes logit_change_source::next(const sequence_log& log) const {
  logit_changes changes{.bias = params_->logit_bias,
                        .repetition_penalty = params_->repetition_penalty,
                        .frequency_penalty = params_->frequency_penalty,
                        .presence_penalty = params_->presence_penalty,
                        .counts = counts_,
                        .forbidden = {},
                        .allowed = allowed_};
  for (const std::vector<std::int32_t>& word : params_->bad_words) {
    if (ends_with(log.emitted_ids, std::span(word).first(word.size() - 1))) {
      changes.forbidden.push_back(word.back());
    }
  }
  if (static_cast<std::int64_t>(log.emitted_ids.size()) < params_->min_tokens) {
    changes.forbidden.insert(changes.forbidden.end(), end_ids_.begin(), end_ids_.end());
  }
  return changes;
}

}  // namespace troupe::engine
