// From outside: many clients with random requests (prompts, parameters, streams, cancellations) at
// a gang that is short of everything, against the same requests asked one at a time of a server
// without cache, batch and overlap, and of `troupe generate`. Only what clients see is compared.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {
namespace {

struct asked {  // NOLINT(bugprone-exception-escape): json may throw when it is moved
  json body;
  int cancel_after = 0;  // events of a stream; 0: read to its end
  bool known_to_generate = false;
};

// What one client saw.
struct seen {                   // NOLINT(bugprone-exception-escape): as above
  std::map<int, json> choices;  // by index: text, token_ids, logprobs, finish_reason
  json usage;
  bool whole = false;  // every choice finished, and a stream's [DONE] came once
  bool cancelled = false;
  std::string wrong;  // anything else
};

std::vector<std::int32_t> prompt_of(std::mt19937& random) {
  // A few beginnings that many share, and an end of their own.
  std::vector<std::int32_t> ids;
  std::mt19937 family(random() % 4);
  for (std::uint64_t i = 0, shared = random() % 4 * 32; i < shared; ++i) {
    ids.push_back(static_cast<std::int32_t>(300 + family() % 1000));
  }
  for (std::uint64_t i = 0, own = 1 + random() % 40; i < own; ++i) {
    ids.push_back(static_cast<std::int32_t>(300 + random() % 1000));
  }
  return ids;
}

void add_drawing(json& body, std::mt19937& random, bool& known_to_generate) {
  body["seed"] = random() % 1000;
  body["temperature"] = random() % 3 == 0 ? 0.0 : 0.5 + 0.25 * static_cast<double>(random() % 5);
  if (random() % 3 == 0) body["top_p"] = 0.7;
  if (random() % 3 == 0) body["top_k"] = 20;
  if (random() % 2 == 0) return;
  known_to_generate = false;
  switch (random() % 5) {
    case 0:
      body["repetition_penalty"] = 1.2;
      break;
    case 1:
      body["presence_penalty"] = 0.5;
      body["frequency_penalty"] = 0.25;
      break;
    case 2:
      body["min_p"] = 0.1;
      body["logit_bias"] = {{"310", 4.0}, {"311", -100.0}};
      break;
    case 3:
      body["guided_regex"] = "[a-z ]{3,40}";
      break;
    default:
      body["bad_words"] = {"the", "gang"};
      body["min_tokens"] = 3;
      break;
  }
}

asked request(std::uint64_t number) {
  std::mt19937 random(static_cast<unsigned>(number));
  asked made;
  made.known_to_generate = true;
  made.body = {{"model", "demo"},
               {"prompt", prompt_of(random)},
               {"max_tokens", 3 + random() % 60},
               {"return_token_ids", true},
               {"n", random() % 4 == 0 ? 3 : 1}};
  add_drawing(made.body, random, made.known_to_generate);
  if (random() % 2 == 0) made.body["ignore_eos"] = true;
  if (random() % 3 == 0) made.body["logprobs"] = random() % 4;
  if (random() % 4 == 0) {
    made.body["stop"] = {"e", "gang"};
    made.known_to_generate = false;  // its JSON has the stop string's tokens as well
  }
  if (random() % 6 == 0) {
    made.body["echo"] = true;
    made.known_to_generate = false;
  }
  made.body["stream"] = random() % 2 == 0;
  if (made.body["stream"].get<bool>()) {
    made.body["stream_options"] = {{"include_usage", true}};
    if (random() % 4 == 0) made.cancel_after = 1 + static_cast<int>(random() % 10);
  }
  return made;
}

void append_list(json& to, const json& from, const char* name) {
  if (!from.contains(name) || !from[name].is_array()) return;
  for (const json& each : from[name]) to[name].push_back(each);
}

// Adds an event's or an answer's choice to what was seen of it before.
void add_choice(seen& of, const json& choice) {
  json& known = of.choices[choice.at("index").get<int>()];
  if (known.is_null()) known = {{"text", ""}, {"finish_reason", nullptr}};
  if (!known["finish_reason"].is_null()) of.wrong = "a choice goes on behind its end";
  known["text"] = known["text"].get<std::string>() + choice.at("text").get<std::string>();
  append_list(known, choice, "token_ids");
  if (choice["logprobs"].is_object()) {
    for (const char* const list : {"tokens", "token_logprobs", "text_offset", "top_logprobs"}) {
      append_list(known["logprobs"], choice["logprobs"], list);
    }
  }
  known["finish_reason"] = choice["finish_reason"];
}

bool all_finished(const seen& of) {
  return !of.choices.empty() &&
         std::all_of(of.choices.begin(), of.choices.end(),
                     [](const auto& each) { return !each.second["finish_reason"].is_null(); });
}

class event_reader {
 public:
  event_reader(seen& into, int cancel_after) : into_(into), cancel_after_(cancel_after) {}

  bool take(std::string_view bytes) {
    unread_ += bytes;
    for (std::size_t end = 0; (end = unread_.find("\n\n")) != std::string::npos;) {
      const std::string line = unread_.substr(0, end);
      unread_.erase(0, end + 2);
      if (line == "data: [DONE]") {
        if (done_) into_.wrong = "[DONE] came twice";
        done_ = true;
        continue;
      }
      const json event = json::parse(line.substr(6));
      if (event.contains("error")) into_.wrong = event.dump();
      for (const json& choice : event.value("choices", json::array())) add_choice(into_, choice);
      if (event.contains("usage") && event["usage"].is_object()) into_.usage = event["usage"];
      if (++events_ == cancel_after_) {
        into_.cancelled = true;
        return false;
      }
    }
    return true;
  }
  [[nodiscard]] bool done() const { return done_; }

 private:
  seen& into_;
  const int cancel_after_;
  int events_ = 0;
  bool done_ = false;
  std::string unread_;
};

// One attempt. A gang that is being mended takes nothing new: nothing, so that it is asked again.
std::optional<seen> ask_once(const std::string& url, const asked& of) {
  seen saw;
  const net::http_call call{.method = "POST",
                            .url = url + "/v1/completions",
                            .headers = {{"content-type", "application/json"}},
                            .body = of.body.dump(),
                            .deadline = 120s};
  if (!of.body["stream"].get<bool>()) {
    const auto reply = net::http_fetch(call);
    if (reply && reply->status == 503) return std::nullopt;
    if (!reply || reply->status != 200) {
      saw.wrong = reply ? reply->body : reply.error().message;
      return saw;
    }
    const json answer = json::parse(reply->body);
    for (const json& choice : answer.at("choices")) add_choice(saw, choice);
    saw.usage = answer["usage"];
    saw.whole = all_finished(saw);
    return saw;
  }
  event_reader events(saw, of.cancel_after);
  const auto reply = net::http_stream(
      call, {.head = {}, .piece = [&](std::string_view bytes) { return events.take(bytes); }});
  if (reply && reply->status == 503) return std::nullopt;
  if (!saw.cancelled && (!reply || reply->status != 200)) {
    saw.wrong = reply ? "status " + std::to_string(reply->status) : reply.error().message;
  }
  saw.whole = events.done() && all_finished(saw);
  return saw;
}

seen ask(const std::string& url, const asked& of) {
  std::optional<seen> saw;
  if (wait_until([&] { return (saw = ask_once(url, of)).has_value(); })) return *std::move(saw);
  seen nothing;
  nothing.wrong = "503 for a minute";
  return nothing;
}

// What came of a cancelled stream is a beginning of what would have come.
void expect_beginning(const json& part, const json& whole) {
  const json ids = part.value("token_ids", json::array());
  const json all = whole.value("token_ids", json::array());
  ASSERT_LE(ids.size(), all.size());
  for (std::size_t i = 0; i < ids.size(); ++i) ASSERT_EQ(ids[i], all[i]) << "token " << i;
  EXPECT_TRUE(whole["text"].get<std::string>().starts_with(part["text"].get<std::string>()));
}

void compare(const seen& got, const seen& alone) {
  ASSERT_EQ(got.wrong, "");
  ASSERT_EQ(alone.wrong, "");
  ASSERT_TRUE(alone.whole);
  if (got.cancelled) {
    for (const auto& [index, choice] : got.choices) {
      expect_beginning(choice, alone.choices.at(index));
    }
    return;
  }
  EXPECT_TRUE(got.whole) << "it has no end";
  ASSERT_EQ(got.choices.size(), alone.choices.size());
  for (const auto& [index, choice] : got.choices) {
    EXPECT_EQ(choice, alone.choices.at(index)) << "choice " << index;
  }
  EXPECT_EQ(got.usage["prompt_tokens"], alone.usage["prompt_tokens"]);
  EXPECT_EQ(got.usage["completion_tokens"], alone.usage["completion_tokens"]);
}

void compare_with_generate(const asked& of, const seen& got) {
  const json& body = of.body;
  std::string ids;
  for (const json& id : body["prompt"]) ids += (ids.empty() ? "" : ",") + id.dump();
  std::vector<std::string> words = {"generate", "demo", "--ranks", "threads", "--output", "json"};
  const auto add = [&](const char* name, const std::string& value) {
    words.insert(words.end(), {std::string("--") + name, value});
  };
  add("prompt-token-ids", ids);
  add("max-tokens", body["max_tokens"].dump());
  add("temperature", body["temperature"].dump());
  add("seed", body["seed"].dump());
  add("n", body["n"].dump());
  if (body.contains("top_p")) add("top-p", body["top_p"].dump());
  if (body.contains("top_k")) add("top-k", body["top_k"].dump());
  if (body.contains("ignore_eos")) words.emplace_back("--ignore-eos");
  const auto alone = cli::test::run(words);
  ASSERT_EQ(alone.code, 0) << alone.err;
  const json told = json::parse(alone.out);
  for (const json& choice : told["choices"]) {
    const json& served = got.choices.at(choice["index"].get<int>());
    EXPECT_EQ(served["token_ids"], choice["token_ids"]);
    EXPECT_EQ(served["text"], choice["text"]);
    EXPECT_EQ(served["finish_reason"], choice["finish_reason"]);
  }
}

double sum_of_metric(served_gang& gang, const std::string& name) {
  const auto reply = net::http_fetch({.url = gang.url() + "/metrics", .deadline = 5s});
  double sum = 0.0;
  std::istringstream lines(reply ? reply->body : "");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + "{")) sum += std::stod(line.substr(line.rfind(' ')));
  }
  return sum;
}

// The counters say what the clients saw.
void check_metrics(served_gang& gang, const std::vector<asked>& requests,
                   const std::vector<seen>& saw) {
  EXPECT_TRUE(wait_until([&] { return gang.metric("vllm:num_requests_running") == 0.0; }, 10s));
  EXPECT_TRUE(wait_until([&] { return gang.metric("vllm:kv_cache_usage_perc") == 0.0; }, 10s));
  EXPECT_EQ(gang.metric("vllm:num_requests_waiting"), 0.0);
  double sequences = 0.0;
  double tokens = 0.0;
  double tokens_of_whole = 0.0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    sequences += requests[i].body["n"].get<double>();
    for (const auto& [index, choice] : saw[i].choices) {
      const auto count = static_cast<double>(choice.value("token_ids", json::array()).size());
      tokens += count;
      if (saw[i].whole) tokens_of_whole += count;
    }
  }
  EXPECT_EQ(sum_of_metric(gang, "vllm:request_success_total"), sequences);
  EXPECT_GE(gang.metric("vllm:generation_tokens_total"), tokens);
  EXPECT_GT(tokens_of_whole, 0.0);
  EXPECT_GT(gang.metric("vllm:num_preemptions_total"), 0.0) << "the gang was not short of blocks";
  EXPECT_GT(gang.metric("vllm:prefix_cache_hits_total"), 0.0);
}

// Kills the rank of a gang that is not the leader's, again as soon as it serves and has moved on.
// Not for ever: each restart waits longer than the one before.
constexpr int kills_max = 4;
class killer {
 public:
  explicit killer(served_gang& gang)
      : thread_([this, &gang](const std::stop_token& stop) {
          while (!stop.stop_requested() && kills_ < kills_max) {
            const double tokens = gang.metric("vllm:generation_tokens_total");
            const bool moves = wait_until([&] {
              return stop.stop_requested() ||
                     (gang.status("/ready") == 200 &&
                      gang.metric("vllm:generation_tokens_total") > tokens + 200);
            });
            if (moves && !stop.stop_requested() && gang.send_signal(1, SIGKILL)) ++kills_;
          }
        }) {}
  int stop() {
    thread_.request_stop();
    thread_.join();
    return kills_;
  }

 private:
  std::atomic<int> kills_{0};
  std::jthread thread_;
};

struct history {
  std::uint64_t first_seed = 0;
  std::size_t requests = 0;
  std::size_t clients = 0;
  bool losses = false;
};

void check_history(const history& of) {
  const std::uint64_t first_seed = of.first_seed;
  const std::size_t count = of.requests;
  SCOPED_TRACE("requests from seed " + std::to_string(first_seed));
  served_gang gang({"--tensor-parallel-size", "2", "--max-num-seqs", "8",
                    "--max-num-batched-tokens", "48", "--max-model-len", "256", "--kv-cache-memory",
                    "400K", "--max-restarts", "1000"});
  served_gang alone({"--max-num-seqs", "1", "--max-model-len", "256", "--no-enable-prefix-caching",
                     "--no-async-scheduling"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  ASSERT_TRUE(alone.ready_within()) << alone.log();
  std::vector<asked> requests;
  for (std::size_t i = 0; i < count; ++i) requests.push_back(request(first_seed + i));
  std::vector<seen> saw(count);
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> threads;
  std::optional<killer> kills;
  if (of.losses) kills.emplace(gang);
  for (std::size_t client = 0; client < of.clients; ++client) {
    threads.emplace_back([&, url = gang.url()] {
      for (std::size_t i = 0; (i = next.fetch_add(1)) < count;) saw[i] = ask(url, requests[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (kills) {
    EXPECT_GE(kills->stop(), 2);
    EXPECT_GE(gang.metric("troupe_requests_carried_total"), 2.0);
    ASSERT_TRUE(gang.ready_within()) << gang.log();
  }
  for (std::size_t i = 0; i < count; ++i) {
    SCOPED_TRACE("seed " + std::to_string(first_seed + i) + ": " + requests[i].body.dump());
    asked again = requests[i];
    again.cancel_after = 0;
    compare(saw[i], ask(alone.url(), again));
    if (requests[i].known_to_generate && saw[i].whole && i % 16 == 0) {
      compare_with_generate(requests[i], saw[i]);
    }
    if (testing::Test::HasFailure()) break;  // the first is enough to go by
  }
  // Attempts that a gang refused while it was mended are counted too.
  if (!of.losses) check_metrics(gang, requests, saw);
  EXPECT_TRUE(wait_until([&] { return gang.metric("vllm:kv_cache_usage_perc") == 0.0; }, 10s));
}

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t always = 40;  // 0.6 s each
#else
constexpr std::size_t always = 200;
#endif
TEST(History, EveryClientSeesWhatItWouldSeeAlone) {
  check_history({.first_seed = 1, .requests = always, .clients = 24});
}

// A rank is killed again and again: a pause, and nothing else.
TEST(History, EveryClientSeesTheSameWhileARankIsKilledAgainAndAgain) {
  check_history({.first_seed = 50'000, .requests = always, .clients = 24, .losses = true});
}

// Label slow: other requests each time are seeds of their own.
TEST(HistoryFull, EveryClientSeesWhatItWouldSeeAlone) {
  check_history({.first_seed = 100'000, .requests = 4000, .clients = 48});
}
TEST(HistoryFull, EveryClientSeesTheSameWhileARankIsKilledAgainAndAgain) {
  check_history({.first_seed = 200'000, .requests = 4000, .clients = 48, .losses = true});
}

}  // namespace
}  // namespace troupe::gang_test
