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

struct token_bias {
  std::int32_t token_id = 0;
  float bias = 0.0F;
  friend bool operator==(const token_bias&, const token_bias&) = default;
};

// What is changed in the model's logits before a token is drawn. Names and meanings as in OpenAI's
// and vLLM's requests; the defaults change nothing.
struct logit_params {
  float presence_penalty = 0.0F;    // Range: -2 .. 2; off tokens that the answer has
  float frequency_penalty = 0.0F;   // Range: -2 .. 2; as often as the answer has them
  float repetition_penalty = 1.0F;  // Range: above 0; of tokens in prompt or answer
  std::vector<token_bias> logit_bias = {};
  std::vector<std::vector<std::int32_t>> bad_words = {};  // the last token of each is not drawn
  std::vector<std::int32_t> allowed_token_ids = {};       // empty: all
  std::int64_t min_tokens = 0;  // no end token and no stop token before so many
  friend bool operator==(const logit_params&, const logit_params&) = default;
};

// Names and meanings as in OpenAI's and vLLM's requests.
struct sampling_params {
  float temperature = 1.0F;      // Range: 0 .. 2; 0 is greedy
  float top_p = 1.0F;            // Range: (0, 1]; 1 is off
  std::int32_t top_k = 0;        // 0 is off
  float min_p = 0.0F;            // Range: 0 .. 1; of the most likely token's probability; 0 is off
  std::uint64_t seed = 0;        // drawn at admission when the request has none
  std::uint32_t choice = 0;      // index of this sequence among a request's n
  std::int64_t max_tokens = 16;  // Range: >= 1
  bool ignore_eos = false;
  std::vector<std::int32_t> stop_token_ids = {};
  std::int32_t logprobs = -1;         // -1: none, k: the token's and the k most likely ones'
  std::int32_t prompt_logprobs = -1;  // the same of the prompt's tokens but the first; of choice 0
  // Both immutable and shared, as the choices of a request have the same.
  std::shared_ptr<const logit_params> logits = {};     // null: as the model says
  std::shared_ptr<const output_grammar> grammar = {};  // null: any text
};

// Whose cached beginnings a sequence may use: only those of the same scope. It changes no token.
struct cache_scope {
  std::string tenant = {};  // whose key opened the request; empty: there are no keys
  std::string salt = {};    // a request's own cache_salt
  bool none = false;        // finds nothing and leaves nothing
  friend bool operator==(const cache_scope&, const cache_scope&) = default;
};

struct sequence_log {
  sampling_params params;
  std::vector<std::int32_t> prompt_ids = {};
  std::vector<std::int32_t> emitted_ids = {};
  cache_scope scope = {};

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
