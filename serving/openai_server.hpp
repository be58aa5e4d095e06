// OpenAI's HTTP API, with vLLM's additions, over one gang: chat and text completions, models,
// tokens, health, metrics, and a page to try it all. Which parameters there are, what each answer
// holds and where it departs from OpenAI or vLLM is told in docs/http.md.
//
// Life cycle: make() with borrowed parts, then the HTTP server with handle() as its handler, then
// attach() to it. At the end drain(), http_server::stop(), then destroy this, which cancels what is
// still open, then the HTTP server and the gang service.
// Threads: handle() and everything it posts run on the HTTP thread; attach(), drain() and
// open_requests() may come from any. Text is read and tokenised on two threads of its own.
//
//   TROUPE_TRY(api, serving::openai_server::make({.gang = gang, .tokenizer = &tokens, ...}));
//   TROUPE_TRY(http, net::http_server::start({.listening = socket,
//       .handler = [&](auto request, auto response) { api->handle(request, response); },
//       .error_body = serving::openai_server::error_body}));
//   api->attach(*http);
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actors/gang_service.hpp"
#include "base/entropy.hpp"
#include "base/error.hpp"
#include "models/text/chat_template.hpp"
#include "models/text/grammar_cache.hpp"
#include "models/text/tokenizer.hpp"
#include "net/http_server.hpp"
#include "serving/answer_parser.hpp"
#include "serving/api_keys.hpp"

namespace troupe::serving {

// What a request may ask for. Everything above is a 400 that names the parameter, but for the
// queues, which answer 503.
struct serving_limits {
  int json_depth_max = 32;
  std::size_t json_values_max = std::size_t{1}
                                << 20;  // each costs up to 100 bytes while it is read
  std::size_t messages_max = 1024;
  std::size_t content_parts_max = 1024;  // of one message
  std::size_t tools_max = 128;           // as OpenAI
  std::size_t tool_name_bytes_max = 256;
  std::size_t calls_max = 128;           // of one message
  std::size_t prompts_max = 128;         // of one /v1/completions
  std::int64_t choices_max = 128;        // n, as OpenAI
  std::int64_t choices_total_max = 256;  // n times prompts
  std::size_t stop_strings_max = 16;     // OpenAI: 4
  std::size_t stop_string_bytes_max = 1024;
  std::size_t stop_token_ids_max = 128;
  std::size_t logit_bias_max = 1024;  // as the engine's
  std::size_t bad_words_max = 512;    // each counts twice there
  std::size_t bad_word_tokens_max = 64;
  std::size_t cache_salt_bytes_max = 256;
  std::int32_t logprobs_max = 20;  // the engine's own bound, OpenAI's top_logprobs
  // Requests that wait for one of the two text threads, and their bodies together.
  std::size_t text_queue_max = 4096;
  std::size_t text_queue_bytes_max = std::size_t{64} << 20;
  // A body longer than this goes to the second text thread, so that short ones do not wait for it.
  std::size_t short_body_bytes = std::size_t{64} << 10;
};

// What the model is, for people and for checks that name the parameter.
struct served_model {
  std::vector<std::string> names;  // at least one; the first is what answers carry
  std::string root;                // the folder or name it was loaded from
  std::chrono::seconds created{};  // unix time, for /v1/models
  std::int64_t max_model_len = 0;
  std::int32_t vocab_size = 0;
  std::int64_t block_size = 16;
  std::string kv_cache_dtype = "auto";
  bool prefix_caching = true;
  // How it writes calls of tools, and what it thinks.
  tool_format tools = tool_format::none;
  reasoning_format reasoning = reasoning_format::none;
  // Used where a request has none (generation_config.json).
  float temperature = 1.0F;
  float top_p = 1.0F;
  std::int32_t top_k = 0;
};

// All clocks and chance of this folder; a test passes its own.
struct serving_seams {
  // Unix time of `created`. Required: logic has no wall clock of its own.
  std::function<std::chrono::seconds()> wall_clock;
  std::function<std::chrono::steady_clock::time_point()> clock = std::chrono::steady_clock::now;
  std::function<base::result<std::uint64_t>()> draw_seed = base::draw_seed;
};

struct openai_server_options {
  actors::gang_service& gang;
  // nullptr: the model has none; prompts are token ids then, and answers hold no text but token
  // ids.
  const text::tokenizer* tokenizer = nullptr;
  const text::chat_template* chat = nullptr;  // nullptr: no chat completions
  text::grammar_cache* grammars = nullptr;    // nullptr: answers follow no grammar
  served_model model;
  api_keys keys = {};  // none: open to everybody who reaches the port
  // /health, /ready and /metrics without a key also from elsewhere than loopback.
  bool open_metrics = false;
  serving_limits limits = {};
  serving_seams seams;
  std::string version = "0.1.0";
  std::string build_id = {};
  // Asked by /health besides the loop's own turn: false when the supervisor does not answer.
  std::function<bool()> supervisor_lives = {};
};

class openai_server {
 public:
  // Errors: invalid_argument (no name, no wall clock, a limit of zero), resource_exhausted
  // (threads), unavailable (no seed from the system).
  [[nodiscard]] static base::result<std::unique_ptr<openai_server>> make(
      openai_server_options options);
  openai_server(const openai_server&) = delete;
  openai_server& operator=(const openai_server&) = delete;
  ~openai_server();

  // Answers one request, now or later. On the HTTP thread.
  void handle(net::http_request request, std::shared_ptr<net::response> response);

  // How to reach the HTTP thread. What was posted before waits for it.
  void attach(net::http_server& server);
  // The same without a server: `post` runs a call later, never before it returns.
  void attach(std::function<bool(std::function<void()>)> post);

  // /ready answers 503 from now on, new work is refused with 503, Retry-After and
  // `connection: close`; what is open ends in peace.
  void drain() noexcept;

  // Requests for tokens that are not answered in full.
  [[nodiscard]] std::size_t open_requests() const noexcept;

  // Content type and body of an error that the HTTP server answers by itself (413, 431 ...).
  [[nodiscard]] static std::pair<std::string, std::string> error_body(int status,
                                                                      std::string_view what);

 private:
  class impl;
  explicit openai_server(std::shared_ptr<impl> made);
  std::shared_ptr<impl> impl_;
};

}  // namespace troupe::serving
