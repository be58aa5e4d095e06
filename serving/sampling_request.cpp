#include "serving/sampling_request.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "serving/unsupported_fields.hpp"

namespace troupe::serving {
namespace {

// OpenAI's range of n, of temperature; the rest is bounded by serving_limits.
constexpr number_range temperature_range{0.0, 2.0};
constexpr integer_range any_integer{};

api_result<std::string> stop_string(const json& value, const std::string& param,
                                    const serving_limits& limits) {
  TROUPE_TRY(text, as_string(value, param));
  if (text.empty()) return refuse(param, "an empty string stops nothing");
  if (text.size() > limits.stop_string_bytes_max) {
    return refuse(param, fmt::format("{} bytes long, at most {} are allowed", text.size(),
                                     limits.stop_string_bytes_max));
  }
  return std::move(text);
}

api_result<std::vector<std::string>> read_stop(const field_reader& fields,
                                               const serving_limits& limits) {
  std::vector<std::string> out;
  const json* const value = fields.find("stop");
  if (value == nullptr) return out;
  if (!value->is_array()) {
    if (!value->is_string()) {
      return refuse("stop", "expected a string or a list of strings, got " + shown(*value),
                    "invalid_type");
    }
    TROUPE_TRY(text, stop_string(*value, "stop", limits));
    out.push_back(std::move(text));
    return out;
  }
  if (value->size() > limits.stop_strings_max) {
    return refuse("stop", fmt::format("{} strings, at most {} are allowed", value->size(),
                                      limits.stop_strings_max));
  }
  for (std::size_t i = 0; i < value->size(); ++i) {
    TROUPE_TRY(text, stop_string((*value)[i], fmt::format("stop[{}]", i), limits));
    out.push_back(std::move(text));
  }
  return out;
}

api_result<std::vector<std::int32_t>> read_stop_token_ids(const field_reader& fields,
                                                          const served_model& model,
                                                          const serving_limits& limits) {
  std::vector<std::int32_t> out;
  const json* const value = fields.find("stop_token_ids");
  if (value == nullptr) return out;
  if (!value->is_array()) {
    return refuse("stop_token_ids", "expected a list of integers, got " + shown(*value),
                  "invalid_type");
  }
  if (value->size() > limits.stop_token_ids_max) {
    return refuse("stop_token_ids", fmt::format("{} ids, at most {} are allowed", value->size(),
                                                limits.stop_token_ids_max));
  }
  for (std::size_t i = 0; i < value->size(); ++i) {
    TROUPE_TRY(id, as_integer((*value)[i], fmt::format("stop_token_ids[{}]", i),
                              {0, model.vocab_size - 1}));
    out.push_back(static_cast<std::int32_t>(id));
  }
  return out;
}

api_result<void> read_drawing(const field_reader& fields, const served_model& model,
                              sampling_request& out) {
  TROUPE_TRY(temperature, fields.number("temperature", temperature_range));
  out.params.temperature = temperature ? static_cast<float>(*temperature) : model.temperature;
  TROUPE_TRY(top_p, fields.number("top_p", {0.0, 1.0}));
  if (top_p && static_cast<float>(*top_p) <= 0.0F) {
    return refuse("top_p", "expected a number above 0 and up to 1, got 0");
  }
  out.params.top_p = top_p ? static_cast<float>(*top_p) : model.top_p;
  // vLLM: -1 and 0 both mean all tokens.
  TROUPE_TRY(top_k, fields.integer("top_k", {-1, std::numeric_limits<std::int32_t>::max()}));
  out.params.top_k =
      top_k ? static_cast<std::int32_t>(std::max<std::int64_t>(*top_k, 0)) : model.top_k;
  TROUPE_TRY(min_p, fields.number("min_p", {0.0, 1.0}));
  out.params.min_p = static_cast<float>(min_p.value_or(0.0));
  TROUPE_TRY(seed, fields.integer("seed", any_integer));
  if (seed) out.seed = static_cast<std::uint64_t>(*seed);  // a negative seed is one of 2^64 too
  return {};
}

api_result<void> read_length(const field_reader& fields, endpoint at, const served_model& model,
                             const serving_limits& limits, sampling_request& out) {
  if (at == endpoint::completion) {
    TROUPE_TRY(echo, fields.boolean("echo", false));
    out.echo = echo;
  }
  // The prompt alone is of use with its logprobs.
  const integer_range tokens{out.echo ? 0 : 1, std::numeric_limits<std::int64_t>::max()};
  TROUPE_TRY(max_tokens, fields.integer("max_tokens", tokens));
  out.max_tokens = max_tokens;
  if (at == endpoint::chat) {
    // The newer name wins, as in OpenAI's API.
    TROUPE_TRY(completion_tokens, fields.integer("max_completion_tokens", tokens));
    if (completion_tokens) {
      out.max_tokens = completion_tokens;
      out.max_tokens_param = "max_completion_tokens";
    }
  }
  TROUPE_TRY(ignore_eos, fields.boolean("ignore_eos", false));
  out.params.ignore_eos = ignore_eos;
  TROUPE_TRY(stop, read_stop(fields, limits));
  out.stop = std::move(stop);
  TROUPE_TRY(stop_ids, read_stop_token_ids(fields, model, limits));
  out.params.stop_token_ids = std::move(stop_ids);
  return {};
}

api_result<void> read_logprobs(const field_reader& fields, endpoint at,
                               const serving_limits& limits, sampling_request& out) {
  const integer_range most_likely{0, limits.logprobs_max};
  TROUPE_TRY(of_prompt, fields.integer("prompt_logprobs", most_likely));
  out.prompt_logprobs_field = of_prompt.has_value();
  out.params.prompt_logprobs = static_cast<std::int32_t>(of_prompt.value_or(-1));
  if (at == endpoint::completion) {
    TROUPE_TRY(logprobs, fields.integer("logprobs", most_likely));
    out.params.logprobs = logprobs ? static_cast<std::int32_t>(*logprobs) : -1;
    if (out.echo) {
      out.params.prompt_logprobs = std::max(out.params.prompt_logprobs, out.params.logprobs);
    }
    return {};
  }
  TROUPE_TRY(logprobs, fields.boolean("logprobs", false));
  TROUPE_TRY(top, fields.integer("top_logprobs", most_likely));
  if (top.value_or(0) > 0 && !logprobs) {
    return refuse("top_logprobs", "needs logprobs: true");
  }
  out.params.logprobs = logprobs ? static_cast<std::int32_t>(top.value_or(0)) : -1;
  return {};
}

// More choices are computed than are given: those whose tokens were most likely.
api_result<void> read_best_of(const field_reader& fields, endpoint at, const serving_limits& limits,
                              sampling_request& out) {
  out.choices = out.returned;
  if (at == endpoint::chat) return {};
  TROUPE_TRY(best_of, fields.integer("best_of", {1, limits.choices_max}));
  if (!best_of) return {};
  if (*best_of < std::int64_t{out.returned}) {
    return refuse("best_of", fmt::format("is {}, less than n, {}", *best_of, out.returned));
  }
  if (out.stream && *best_of > std::int64_t{out.returned}) {
    return refuse("best_of", "cannot be streamed: which choices are best is known at the end");
  }
  out.choices = static_cast<std::uint32_t>(*best_of);
  return {};
}

api_result<void> read_output(const field_reader& fields, endpoint at, const serving_limits& limits,
                             sampling_request& out) {
  TROUPE_TRY(choices, fields.integer("n", {1, limits.choices_max}));
  out.returned = static_cast<std::uint32_t>(choices.value_or(1));
  TROUPE_TRY(stream, fields.boolean("stream", false));
  out.stream = stream;
  if (out.stream && out.prompt_logprobs_field) {
    return refuse("prompt_logprobs", "cannot be streamed; send stream: false");
  }
  TROUPE_TRY_VOID(read_best_of(fields, at, limits, out));
  TROUPE_TRY(salt, fields.string("cache_salt"));
  if (salt && (salt->empty() || salt->size() > limits.cache_salt_bytes_max)) {
    return refuse("cache_salt", fmt::format("{} bytes long, allowed are 1 to {}", salt->size(),
                                            limits.cache_salt_bytes_max));
  }
  out.cache_salt = salt.value_or("");
  TROUPE_TRY(skip_special, fields.boolean("skip_special_tokens", true));
  out.skip_special_tokens = skip_special;
  TROUPE_TRY(token_ids, fields.boolean("return_token_ids", false));
  out.return_token_ids = token_ids;
  TROUPE_TRY(user, fields.string("user"));  // for the caller's own books
  static_cast<void>(user);
  const json* const options = fields.find("stream_options");
  if (options == nullptr) return {};
  if (!options->is_object()) {
    return refuse("stream_options", "expected an object, got " + shown(*options), "invalid_type");
  }
  if (!out.stream) return refuse("stream_options", "needs stream: true");
  const field_reader inner(*options, "stream_options.");
  TROUPE_TRY(usage, inner.boolean("include_usage", false));
  TROUPE_TRY(continuous, inner.boolean("continuous_usage_stats", false));
  out.include_usage = usage;
  out.continuous_usage = usage && continuous;
  return {};
}

}  // namespace

api_result<sampling_request> read_sampling(const json& body, endpoint at, const served_model& model,
                                           const serving_limits& limits) {
  const field_reader fields(body);
  sampling_request out;
  TROUPE_TRY_VOID(read_drawing(fields, model, out));
  TROUPE_TRY_VOID(read_length(fields, at, model, limits, out));
  TROUPE_TRY_VOID(read_logprobs(fields, at, limits, out));
  TROUPE_TRY_VOID(read_output(fields, at, limits, out));
  TROUPE_TRY_VOID(refuse_unsupported(body, at));
  return out;
}

}  // namespace troupe::serving
