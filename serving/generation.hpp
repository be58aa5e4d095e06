// One request for tokens, from its admission to the last byte of its answer. HTTP thread only.
//
//   submitted --first token--> answering --every choice finished--> done
//       |                          |
//       +--- error, client gone ---+--> done
//
// Streaming: nothing is sent before the first token, so that an error until then is an ordinary
// HTTP error; one event a token (a token whose text is still held back rides with the next); an
// error after that is an event of its own without [DONE], and the connection is cut.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/gang_service.hpp"
#include "net/http_server.hpp"
#include "serving/answer_writer.hpp"
#include "serving/choice_text.hpp"
#include "serving/request_metrics.hpp"
#include "serving/text_front.hpp"
#include "serving/token_mailbox.hpp"

namespace troupe::serving {

// Parts of the server that every request uses; they outlive it.
struct generation_parts {
  actors::gang_service& gang;
  const text::tokenizer* tokenizer;
  token_mailbox& mailbox;
  token_texts& tokens;
  request_metrics& metrics;
};

struct generation_start {
  std::uint64_t key = 0;  // by which mail finds it
  prepared_request request;
  answer_identity identity;
  std::shared_ptr<net::response> response;
  std::chrono::steady_clock::time_point arrived;
  std::string_view route;  // for the count of answers
};

class generation {
 public:
  generation(generation_parts parts, generation_start start);

  // Hands all prompts to the gang, or none: after an error it has answered and is done.
  void submit(std::uint64_t seed);
  void receive(const token_mail& mail);
  // Writes what was received since the last call.
  void flush();
  // The client is gone, or this server goes: the gang stops working on it.
  void abandon();

  [[nodiscard]] bool done() const noexcept { return done_; }

 private:
  struct choice {
    std::uint32_t index = 0;
    std::uint32_t prompt = 0;
    choice_text text;
    std::string whole;                           // not streaming: all text so far
    std::vector<schemas::sampled_token> tokens;  // not sent yet; kept for logprobs and token ids
    std::size_t text_offset = 0;
    std::int64_t token_count = 0;
    double logprob = 0.0;  // of all its tokens
    std::chrono::steady_clock::time_point first;
    std::chrono::steady_clock::time_point last;
    std::optional<schemas::finish_reason> finish;
    bool prompt_ids_sent = false;
    std::size_t echoed = 0;                 // of `tokens`, the prompt's
    std::unique_ptr<answer_parser> parser;  // null: the text is content
    answer_pieces pieces;                   // not sent yet
    bool called = false;                    // tools
  };
  struct part_of_prompt {
    std::optional<base::request_id> id;  // none once it has ended
    bool ended = false;
    std::vector<schemas::sampled_token> logprobs = {};  // of all its tokens, where asked for
  };

  [[nodiscard]] base::result<void> make_choices();
  void on_token(const actors::choice_token& token, std::uint32_t prompt,
                std::chrono::steady_clock::time_point at);
  void on_end(const base::result<void>& outcome, std::uint32_t prompt,
              std::chrono::steady_clock::time_point at);
  // Text that became certain; sets `finish` when the choice is over.
  [[nodiscard]] base::result<std::string> advance(choice& of, const actors::choice_token& token);
  void keep_prompt_logprobs(const actors::choice_token& token, std::uint32_t prompt);
  // The prompt, before a choice's first token; its text.
  [[nodiscard]] std::string echo(choice& of);
  void count_token(choice& of, std::chrono::steady_clock::time_point at);
  void count_finished(const choice& of, finish_kind kind, std::chrono::steady_clock::time_point at);
  void begin_stream();
  // Takes text that became certain apart, where there is something to take apart.
  void parse(choice& of, std::string_view text);
  void send_part(choice& of, std::string_view text);
  void complete();
  [[nodiscard]] std::span<const choice> best_choices();
  void fail(const api_error& error);
  void cancel_open();
  void count_unfinished(finish_kind kind);
  [[nodiscard]] token_usage usage() const;
  [[nodiscard]] bool keeps_tokens() const;

  generation_parts parts_;
  std::uint64_t key_;
  prepared_request request_;
  std::string id_;
  answer_writer writer_;
  std::shared_ptr<net::response> response_;
  std::chrono::steady_clock::time_point arrived_;
  std::chrono::steady_clock::time_point last_mail_;
  std::string_view route_;
  std::vector<part_of_prompt> prompts_;
  std::vector<choice> choices_;
  std::vector<choice> best_;
  std::size_t unfinished_ = 0;
  std::int64_t cached_tokens_ = 0;  // of all prompts
  std::string unsent_;
  bool begun_ = false;
  bool done_ = false;
};

}  // namespace troupe::serving
