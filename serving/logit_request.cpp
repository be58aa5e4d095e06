#include "serving/logit_request.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace troupe::serving {
namespace {

using schemas::logit_params;

constexpr number_range penalty_range{-2.0, 2.0};
constexpr double bias_max = 100.0;
// A range of numbers has both ends; 0 itself is refused below.
constexpr number_range repetition_range{0.0, 100.0};

api_result<void> read_penalties(const field_reader& fields, logit_params& out) {
  TROUPE_TRY(presence, fields.number("presence_penalty", penalty_range));
  TROUPE_TRY(frequency, fields.number("frequency_penalty", penalty_range));
  TROUPE_TRY(repetition, fields.number("repetition_penalty", repetition_range));
  out.presence_penalty = static_cast<float>(presence.value_or(0.0));
  out.frequency_penalty = static_cast<float>(frequency.value_or(0.0));
  out.repetition_penalty = static_cast<float>(repetition.value_or(1.0));
  if (out.repetition_penalty <= 0.0F) {
    return refuse("repetition_penalty", "expected a number above 0 and up to 100, got 0");
  }
  return {};
}

api_result<std::int32_t> read_biased_id(const std::string& key, const served_model& model) {
  std::int32_t id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= model.vocab_size) {
    return refuse("logit_bias", fmt::format("expected token ids from 0 to {} as names, got {}",
                                            model.vocab_size - 1, shown(json(key))));
  }
  return id;
}

api_result<void> read_bias(const field_reader& fields, const served_model& model,
                           const serving_limits& limits, logit_params& out) {
  const json* const value = fields.find("logit_bias");
  if (value == nullptr) return {};
  if (!value->is_object()) {
    return refuse("logit_bias", "expected an object of token id to bias, got " + shown(*value),
                  "invalid_type");
  }
  if (value->size() > limits.logit_bias_max) {
    return refuse("logit_bias", fmt::format("{} entries, at most {} are allowed", value->size(),
                                            limits.logit_bias_max));
  }
  for (const auto& [key, bias] : value->items()) {
    TROUPE_TRY(id, read_biased_id(key, model));
    const std::string param = fmt::format("logit_bias.{}", id);
    if (!bias.is_number()) {
      return refuse(param, "expected a number, got " + shown(bias), "invalid_type");
    }
    const double number = bias.get<double>();
    if (!(number >= -bias_max && number <= bias_max)) {
      return refuse(param, "expected a number from -100 to 100, got " + shown(bias));
    }
    // "7" and "07" are one token.
    const bool twice = std::any_of(out.logit_bias.begin(), out.logit_bias.end(),
                                   [id = id](const auto& other) { return other.token_id == id; });
    if (twice) return refuse("logit_bias", fmt::format("names token {} twice", id));
    out.logit_bias.push_back({id, static_cast<float>(number)});
  }
  return {};
}

api_result<void> read_allowed(const field_reader& fields, const served_model& model,
                              logit_params& out) {
  const json* const value = fields.find("allowed_token_ids");
  if (value == nullptr) return {};
  if (!value->is_array() || value->empty()) {
    return refuse("allowed_token_ids", "expected a list of token ids, got " + shown(*value),
                  "invalid_type");
  }
  for (std::size_t i = 0; i < value->size(); ++i) {
    const json& id = (*value)[i];
    if (!id.is_number_unsigned() ||
        id.get<std::uint64_t>() >= static_cast<std::uint64_t>(model.vocab_size)) {
      return refuse(
          fmt::format("allowed_token_ids[{}]", i),
          fmt::format("expected a token id from 0 to {}, got {}", model.vocab_size - 1, shown(id)));
    }
    out.allowed_token_ids.push_back(static_cast<std::int32_t>(id.get<std::uint64_t>()));
  }
  return {};
}

// A word as the model may write it: at the start of a text and after a space, as vLLM does.
api_result<void> add_bad_word(std::string_view word, const std::string& param,
                              const serving_limits& limits, const text::tokenizer& tokenizer,
                              logit_params& out) {
  const std::size_t begin = word.find_first_not_of(' ');
  if (begin == std::string_view::npos) return refuse(param, "an empty word cannot be kept out");
  for (const char* const space : {"", " "}) {
    auto ids = tokenizer.encode(space + std::string(word.substr(begin)),
                                {.add_special_tokens = false, .parse_special = false});
    if (!ids) return refuse(param, ids.error().message);
    if (ids->empty() || ids->size() > limits.bad_word_tokens_max) {
      return refuse(param, fmt::format("has {} tokens, allowed are 1 to {}", ids->size(),
                                       limits.bad_word_tokens_max));
    }
    if (std::find(out.bad_words.begin(), out.bad_words.end(), *ids) == out.bad_words.end()) {
      out.bad_words.push_back(*std::move(ids));
    }
  }
  return {};
}

api_result<void> read_bad_words(const field_reader& fields, const serving_limits& limits,
                                const text::tokenizer* tokenizer, logit_params& out) {
  const json* const value = fields.find("bad_words");
  if (value == nullptr) return {};
  if (!value->is_array()) {
    return refuse("bad_words", "expected a list of strings, got " + shown(*value), "invalid_type");
  }
  if (value->size() > limits.bad_words_max) {
    return refuse("bad_words", fmt::format("{} words, at most {} are allowed", value->size(),
                                           limits.bad_words_max));
  }
  if (tokenizer == nullptr && !value->empty()) {
    return refuse("bad_words", "this model has no tokenizer", "unsupported_parameter");
  }
  for (std::size_t i = 0; i < value->size(); ++i) {
    const std::string param = fmt::format("bad_words[{}]", i);
    TROUPE_TRY(word, as_string((*value)[i], param));
    TROUPE_TRY_VOID(add_bad_word(word, param, limits, *tokenizer, out));
  }
  return {};
}

}  // namespace

api_result<std::shared_ptr<const logit_params>> read_logit_params(
    const json& body, const served_model& model, const serving_limits& limits,
    const text::tokenizer* tokenizer) {
  const field_reader fields(body);
  logit_params out;
  TROUPE_TRY_VOID(read_penalties(fields, out));
  TROUPE_TRY_VOID(read_bias(fields, model, limits, out));
  TROUPE_TRY_VOID(read_allowed(fields, model, out));
  TROUPE_TRY_VOID(read_bad_words(fields, limits, tokenizer, out));
  TROUPE_TRY(least, fields.integer("min_tokens", {0, std::numeric_limits<std::int64_t>::max()}));
  out.min_tokens = least.value_or(0);
  if (out == logit_params{}) return std::shared_ptr<const logit_params>();
  return std::shared_ptr<const logit_params>(std::make_shared<logit_params>(std::move(out)));
}

}  // namespace troupe::serving
