// A sequence's whole state: its parameters, its prompt and what it has emitted.
//
// Everything else (KV blocks, penalties, the generator's place, the stop matcher) is recomputed
// from this, so a sequence may be dropped at any token and go on elsewhere with the same bits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace troupe::schemas {

// What the text of an answer must be. A part of the log: the grammar's state is recomputed from
// this and the emitted tokens.
struct output_grammar {
  enum class kind : std::uint8_t { json_object, json_schema, regex, choice, lark };
  kind of = kind::json_object;
  // The schema as JSON, the expression, a JSON list of strings, the Lark grammar; empty for any
  // JSON object.
  std::string text;
  friend bool operator==(const output_grammar&, const output_grammar&) = default;
};

// Names and meanings as in OpenAI's and vLLM's requests.
struct sampling_params {
  float temperature = 1.0F;      // Range: 0 .. 2; 0 is greedy
  float top_p = 1.0F;            // Range: (0, 1]; 1 is off
  std::int32_t top_k = 0;        // 0 is off
  std::uint64_t seed = 0;        // drawn at admission when the request has none
  std::uint32_t choice = 0;      // index of this sequence among a request's n
  std::int64_t max_tokens = 16;  // Range: >= 1
  bool ignore_eos = false;
  std::vector<std::int32_t> stop_token_ids = {};
  std::int32_t logprobs = -1;  // -1: none, k: the token's and the k most likely ones'
  // Immutable and shared, as the choices of a request have the same; null: any text.
  std::shared_ptr<const output_grammar> grammar = {};
};

struct sequence_log {
  sampling_params params;
  std::vector<std::int32_t> prompt_ids = {};
  std::vector<std::int32_t> emitted_ids = {};

  [[nodiscard]] std::int64_t size() const noexcept {
    return static_cast<std::int64_t>(prompt_ids.size() + emitted_ids.size());
  }
  [[nodiscard]] std::int32_t token(std::int64_t position) const noexcept {
    const auto at = static_cast<std::size_t>(position);
    return at < prompt_ids.size() ? prompt_ids[at] : emitted_ids[at - prompt_ids.size()];
  }
};

// "length" and "stop" are OpenAI's words.
enum class finish_reason : std::uint8_t { length, stop };
[[nodiscard]] constexpr const char* to_string(finish_reason reason) noexcept {
  return reason == finish_reason::length ? "length" : "stop";
}

}  // namespace troupe::schemas
