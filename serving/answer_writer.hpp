// Writes the answers of both completion APIs, whole or as server-sent events.
//
// Field sets and their order are OpenAI's; `token_ids` and `prompt_token_ids` are vLLM's and only
// there when asked for. What is the same in all chunks of an answer is written once.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/sequence_log.hpp"
#include "schemas/step_plan.hpp"
#include "serving/answer_parser.hpp"
#include "serving/sampling_request.hpp"
#include "serving/token_text.hpp"

namespace troupe::serving {

struct answer_identity {
  endpoint at = endpoint::chat;
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  std::chrono::seconds created{};
  std::string model;
  std::string system_fingerprint;
  bool short_call_ids = false;  // nine letters and digits, as Mistral's templates demand
};

struct token_usage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t cached_tokens = 0;  // of the prompts, that were not computed
};

// What is new of one choice, or all of it in a whole answer.
struct choice_part {
  std::uint32_t index = 0;
  std::string_view text;
  std::span<const schemas::sampled_token> tokens;  // for logprobs and token ids
  std::size_t echoed = 0;                          // so many of them are the prompt's
  std::size_t text_offset = 0;                     // characters of the tokens before (logprobs)
  std::optional<schemas::finish_reason> finish = {};
  // Where the text has been taken apart; `text` is of no matter then.
  const answer_pieces* pieces = nullptr;
  bool ends_in_calls = false;
  const std::vector<std::int32_t>* prompt_ids = nullptr;  // where they are asked for
  // Where they are asked for: all of the prompt's tokens; the first has no logprob.
  const std::vector<schemas::sampled_token>* prompt_logprobs = nullptr;
};

class answer_writer {
 public:
  answer_writer(const answer_identity& identity, const sampling_request& asked,
                token_texts& tokens);

  // Chat: the first event of a choice, which carries the role.
  void append_role(std::string& out, std::uint32_t index,
                   const std::vector<std::int32_t>& prompt_ids, token_usage usage) const;
  void append_delta(std::string& out, const choice_part& part, token_usage usage) const;
  // The last event where usage is asked for: no choices.
  void append_usage(std::string& out, token_usage usage) const;
  static void append_done(std::string& out) { out += "data: [DONE]\n\n"; }

  [[nodiscard]] std::string whole(std::span<const choice_part> choices, token_usage usage) const;

  // Characters of the tokens' texts, for the text_offset of what comes next.
  [[nodiscard]] std::size_t characters(std::span<const schemas::sampled_token> tokens) const;

 private:
  void append_head(std::string& out, std::string_view object) const;
  void append_chunk_end(std::string& out, token_usage usage) const;
  void append_choice(std::string& out, const choice_part& part, bool chunk) const;
  // Fields of a message or of a delta.
  void append_pieces(std::string& out, const choice_part& part, bool chunk) const;
  void append_calls(std::string& out, const choice_part& part, bool chunk) const;
  [[nodiscard]] std::string call_id(std::uint32_t choice, std::size_t call) const;
  void append_logprobs(std::string& out, const choice_part& part) const;
  void append_chat_logprobs(std::string& out, const choice_part& part) const;
  void append_text_logprobs(std::string& out, const choice_part& part) const;
  void append_prompt_logprobs(std::string& out, const choice_part& part) const;

  endpoint at_;
  std::string head_;  // `"created":...,"model":...,"system_fingerprint":...`
  std::string id_;
  bool short_call_ids_;
  bool logprobs_;
  bool token_ids_;
  bool include_usage_;
  bool continuous_usage_;
  token_texts& tokens_;
};

}  // namespace troupe::serving
