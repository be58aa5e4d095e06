// openai_server behind the real HTTP server, over a gang that makes tokens by itself at a steady
// pace. For tests with real clients: a browser, the official Python client.
#pragma once

#include <condition_variable>
#include <map>
#include <thread>

#include "base/socket.hpp"
#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {

// Answers every prompt with the same words again and again, a token a millisecond. A prompt that
// holds "lose" loses rank 1 after three tokens; the gang stands again 300 ms later, in a new epoch.
class live_gang final : public actors::gang_service {
 public:
  explicit live_gang(const text::tokenizer& tokenizer)
      : tokenizer_(tokenizer),
        words_(tokenizer
                   .encode(" A gang is one model on many ranks; they answer together. Größe 🙂",
                           {.add_special_tokens = false})
                   .value()) {
    state_.ready = true;
    state_.epoch = {0xABCD, 1};
    state_.tensor_parallel_size = 2;
    state_.numerics = "scripted";
    state_.data_plane = "shared_memory";
    state_.kv_blocks_total = state_.kv_blocks_free = 256;
    for (const int rank : {0, 1}) {
      actors::rank_status status;
      status.rank = {rank};
      status.state = actors::rank_state::serving;
      status.node = "node-a";
      state_.ranks.push_back(status);
    }
    thread_ = std::thread([this] { run(); });
  }
  ~live_gang() override {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  base::result<base::request_id> submit(actors::completion_request request,
                                        std::shared_ptr<actors::completion_sink> sink) override {
    const std::lock_guard lock(mutex_);
    if (!state_.ready) {
      return base::fail(base::error_code::unavailable, "gang", "the gang forms again", true);
    }
    const base::request_id id{++last_id_};
    work made{std::move(request), std::move(sink), {}, {}, false};
    made.counts.resize(made.request.choices);
    made.over.resize(made.request.choices);
    const auto prompt = tokenizer_.decode(made.request.prompt_ids, {}).value_or("");
    made.loses = prompt.find("lose") != std::string::npos;
    state_.prompt_tokens += made.request.prompt_ids.size();
    open_.emplace(id.value, std::move(made));
    wake_.notify_one();
    return id;
  }
  void cancel(base::request_id id) override {
    const std::lock_guard lock(mutex_);
    state_.cancelled += open_.erase(id.value);
  }
  void finish_choice(base::request_id id, std::uint32_t choice) override {
    const std::lock_guard lock(mutex_);
    if (const auto found = open_.find(id.value); found != open_.end()) {
      found->second.over[choice] = true;
    }
  }
  [[nodiscard]] actors::gang_status status() const override {
    const std::lock_guard lock(mutex_);
    actors::gang_status now = state_;
    now.running = static_cast<std::int64_t>(open_.size());
    return now;
  }

 private:
  struct work {
    actors::completion_request request;
    std::shared_ptr<actors::completion_sink> sink;
    std::vector<std::int64_t> counts;
    std::vector<bool> over;
    bool loses = false;
  };

  void run() {
    std::unique_lock lock(mutex_);
    while (!stopped_) {
      if (open_.empty() && state_.ready) {
        wake_.wait(lock, [this] { return stopped_ || !open_.empty(); });
      } else {
        wake_.wait_for(lock, std::chrono::milliseconds{1}, [this] { return stopped_; });
      }
      if (!state_.ready && steady_clock::now() > back_at_) repair();
      if (!stopped_ && state_.ready) step();
    }
  }

  void step() {
    ++state_.steps;
    bool lost = false;
    for (auto item = open_.begin(); item != open_.end();) {
      work& of = item->second;
      const auto tokens = next_tokens(of);
      state_.generation_tokens += tokens.size();
      if (!tokens.empty()) of.sink->on_tokens(tokens);
      lost = lost || (of.loses && of.counts[0] == 3);
      const bool ended = std::find(of.over.begin(), of.over.end(), false) == of.over.end();
      if (ended) of.sink->on_end({});
      item = ended ? open_.erase(item) : std::next(item);
    }
    if (lost) lose();
  }

  std::vector<actors::choice_token> next_tokens(work& of) const {
    std::vector<actors::choice_token> out;
    for (std::uint32_t choice = 0; choice < of.request.choices; ++choice) {
      if (of.over[choice]) continue;
      const auto index = static_cast<std::size_t>(of.counts[choice]++);
      auto token = token_of(words_[index % words_.size()], {}, choice);
      if (of.counts[choice] == of.request.params.max_tokens) {
        token.finished = schemas::finish_reason::length;
        of.over[choice] = true;
      }
      for (std::int32_t i = 0; i < of.request.params.logprobs; ++i) {
        token.token.top.push_back({token.token.token_id + i, -0.5F - static_cast<float>(i)});
      }
      out.push_back(token);
    }
    return out;
  }

  void lose() {
    state_.ready = false;
    state_.not_ready = "rank 1 starts again";
    state_.ranks[1].state = actors::rank_state::absent;
    state_.ranks[1].detail = "killed by signal 9";
    ++state_.repairs;
    back_at_ = steady_clock::now() + std::chrono::milliseconds{300};
    for (auto& [id, of] : open_) {
      of.sink->on_end(base::fail(base::error_code::unavailable, "gang",
                                 "rank 1 was lost; send the request again", true));
    }
    open_.clear();
  }

  void repair() {
    state_.ready = true;
    ++state_.epoch.number;
    state_.ranks[1].state = actors::rank_state::serving;
    state_.ranks[1].detail.clear();
    ++state_.ranks[1].restarts;
  }

  const text::tokenizer& tokenizer_;
  std::vector<std::int32_t> words_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::uint64_t, work> open_;
  actors::gang_status state_;
  steady_clock::time_point back_at_;
  std::uint64_t last_id_ = 0;
  bool stopped_ = false;
  std::thread thread_;
};

struct live_server {
  explicit live_server(const std::string& keys = {}) {
    openai_server_options options{
        .gang = gang,
        .tokenizer = &tokenizer,
        .chat = &chat,
        .model = small_model(),
        .seams = {.wall_clock = [] { return std::chrono::seconds{1'700'000'000}; }}};
    options.model.max_model_len = 4096;
    if (!keys.empty()) options.keys = api_keys::parse(keys, "keys").value();
    api = openai_server::make(std::move(options)).value();
    listening = base::listen_on({.host = "127.0.0.1"}).value();
    http = net::http_server::start(
               {.listening = listening.descriptor.get(),
                .handler =
                    [this](net::http_request request, std::shared_ptr<net::response> response) {
                      api->handle(std::move(request), std::move(response));
                    },
                .error_body = openai_server::error_body})
               .value();
    api->attach(*http);
  }
  ~live_server() {
    api->drain();
    http->stop(std::chrono::seconds{5});
    api.reset();
  }
  live_server(const live_server&) = delete;
  live_server& operator=(const live_server&) = delete;

  [[nodiscard]] std::string url() const {
    return "http://127.0.0.1:" + std::to_string(listening.port);
  }

  text::tokenizer tokenizer = open_tokenizer();
  text::chat_template chat = open_template();
  live_gang gang{tokenizer};
  std::unique_ptr<openai_server> api;
  base::listening_socket listening;
  std::unique_ptr<net::http_server> http;
};

}  // namespace troupe::serving::test
