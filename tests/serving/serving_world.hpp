// A whole openai_server over a fake gang, a fake HTTP thread and a real tokenizer and template.
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>

#include "serving/openai_server.hpp"
#include "tests/serving/fake_parts.hpp"

namespace troupe::serving::test {

inline std::string file_text(const std::string& path) {
  std::ifstream file(std::filesystem::path(TROUPE_SOURCE_DIR) / path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  EXPECT_TRUE(file.good()) << path;
  return bytes.str();
}

inline text::tokenizer open_tokenizer(const std::string& name = "qwen") {
  auto opened = text::tokenizer::open(std::filesystem::path(TROUPE_SOURCE_DIR) /
                                      ("tests/golden/text/tokenizers/" + name));
  EXPECT_TRUE(opened.has_value());
  return std::move(opened).value();
}

inline text::chat_template open_template(const std::string& name = "chatml") {
  const std::string source =
      file_text("tests/golden/text/chat/templates/" + name + "/chat_template.jinja");
  return text::chat_template::from_files({.chat_template = source}).value();
}

inline served_model small_model() {
  return {.names = {"small", "org/small"},
          .root = "models/small",
          .created = std::chrono::seconds{1'700'000'000},
          .max_model_len = 512,
          .vocab_size = 800};
}

// A token as the gang sends it.
inline actors::choice_token token_of(std::int32_t id,
                                     std::optional<schemas::finish_reason> finished = {},
                                     std::uint32_t choice = 0) {
  actors::choice_token made;
  made.choice = choice;
  made.token.token_id = id;
  made.token.logprob = -0.5F;
  made.finished = finished;
  return made;
}

struct world {
  explicit world(const std::function<void(openai_server_options&)>& change = {}) {
    gang.state.ready = true;
    gang.state.epoch = {7, 1};
    gang.state.numerics = "avx512_bf16";
    gang.state.data_plane = "shared_memory";
    gang.state.ranks = {
        {.rank = {0}, .state = actors::rank_state::serving, .node = "a", .detail = {}},
        {.rank = {1}, .state = actors::rank_state::serving, .node = "a", .detail = {}}};
    gang.state.kv_blocks_total = 100;
    gang.state.kv_blocks_free = 100;
    openai_server_options options{
        .gang = gang,
        .tokenizer = &tokenizer,
        .chat = &chat,
        .grammars = &grammars,
        .model = small_model(),
        .seams = {.wall_clock = [] { return std::chrono::seconds{1'700'000'100}; },
                  .clock = [this] { return now(); },
                  .draw_seed = [this] { return base::result<std::uint64_t>(++seed); }}};
    if (change) change(options);
    auto made = openai_server::make(std::move(options));
    EXPECT_TRUE(made.has_value()) << made.error().message;
    server = *std::move(made);
    server->attach([this](std::function<void()> call) { return http.post(std::move(call)); });
    http.run();
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  using answer = std::shared_ptr<fake_response>;

  answer begin(std::string method, std::string target, std::string body = {},
               std::vector<net::header_field> headers = {{"content-type", "application/json"}}) {
    auto response = std::make_shared<fake_response>();
    server->handle({.method = std::move(method),
                    .target = std::move(target),
                    .headers = std::move(headers),
                    .body = std::move(body),
                    .peer = "192.0.2.1",
                    .loopback = loopback},
                   response);
    return response;
  }
  answer get(std::string target, std::vector<net::header_field> headers = {}) {
    answer response = begin("GET", std::move(target), {}, std::move(headers));
    EXPECT_TRUE(http.run_until([&] { return response->ended(); }));
    return response;
  }
  // A request that is answered without tokens: an error, a count of tokens.
  answer post(std::string target, const std::string& body) {
    answer response = begin("POST", std::move(target), body);
    EXPECT_TRUE(http.run_until([&] { return response->ended(); })) << body.substr(0, 200);
    return response;
  }
  // Until the gang has the request, which is `count` by then.
  answer ask(std::string target, const std::string& body, std::size_t prompts = 1) {
    const std::size_t before = gang.count();
    answer response = begin("POST", std::move(target), body);
    EXPECT_TRUE(
        http.run_until([&] { return gang.count() == before + prompts || response->ended(); }));
    EXPECT_EQ(gang.count(), before + prompts) << response->body;
    return response;
  }
  answer ask_chat(json more = json::object()) {
    json body = {{"messages", json::array({{{"role", "user"}, {"content", "Hi"}}})}};
    body.update(more);
    return ask("/v1/chat/completions", body.dump());
  }

  [[nodiscard]] std::vector<std::int32_t> ids(const std::string& text) const {
    return tokenizer.encode(text, {.add_special_tokens = false}).value();
  }
  // A step of the gang; what it causes is done before this returns.
  void emit(std::size_t request, const std::vector<actors::choice_token>& tokens) {
    gang.at(request).sink->on_tokens(tokens);
    http.run();
  }
  void emit(std::size_t request, std::int32_t id,
            std::optional<schemas::finish_reason> finished = {}, std::uint32_t choice = 0) {
    emit(request, {token_of(id, finished, choice)});
  }
  // All of a text, token by token, the last one finished by length.
  void emit_text(std::size_t request, const std::string& text, std::uint32_t choice = 0) {
    const auto all = ids(text);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool last = i + 1 == all.size();
      emit(request, all[i], last ? std::optional(schemas::finish_reason::length) : std::nullopt,
           choice);
    }
  }
  void end(std::size_t request, base::result<void> outcome = {}) {
    gang.at(request).sink->on_end(std::move(outcome));
    http.run();
  }

  steady_clock::time_point now() const { return steady_clock::time_point(elapsed.load()); }

  text::tokenizer tokenizer = open_tokenizer();
  text::grammar_cache grammars{
      *text::grammar_factory::make(
          tokenizer, {.eos_token_ids = {*tokenizer.token_to_id("<|im_end|>")}, .vocab_size = 800}),
      {}};
  text::chat_template chat = open_template();
  fake_gang gang;
  fake_http_thread http;
  std::atomic<steady_clock::duration> elapsed{std::chrono::seconds{1000}};
  std::uint64_t seed = 41;
  bool loopback = true;
  std::unique_ptr<openai_server> server;  // last: it uses all of the above
};

}  // namespace troupe::serving::test
