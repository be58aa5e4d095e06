// Everything but completions: who may call what, health, models, metrics, the page.
#include <cmath>
#include <map>

#include "base/sha256.hpp"
#include "serving/page.hpp"
#include "tests/base/instruction_count.hpp"
#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {
namespace {

using schemas::finish_reason;

constexpr const char* key = "a-key-of-32-characters-for-tests";

std::vector<net::header_field> with_key(const std::string& value) {
  return {{"authorization", "Bearer " + value}, {"content-type", "application/json"}};
}

// --- keys ---------------------------------------------------------------------------------------

TEST(ApiKeys, ReadsKeysAndHashes) {
  const std::string hashed = "second-key-that-is-only-a-hash";
  const std::string file = "# keys\n\n  " + std::string(key) +
                           " \r\nteam a:" + base::to_hex(base::sha256_of(hashed)) + "\n";
  const auto keys = api_keys::parse(file, "keys.txt");
  ASSERT_TRUE(keys.has_value()) << keys.error().message;
  EXPECT_EQ(keys->size(), 2U);
  EXPECT_TRUE(keys->admits("Bearer " + std::string(key)));
  EXPECT_TRUE(keys->admits("bearer  " + hashed + " "));
  const std::vector<std::string> wrongs = {std::string(),
                                           std::string(key),
                                           "Bearer",
                                           "Bearer ",
                                           "Basic " + std::string(key),
                                           "Bearer " + std::string(key) + "x",
                                           "Bearer " + std::string(key).substr(1),
                                           "Bearer " + base::to_hex(base::sha256_of(hashed)),
                                           "Bearer " + std::string(5000, 'a')};
  for (const std::string& wrong : wrongs) {
    EXPECT_FALSE(keys->admits(wrong)) << wrong;
  }
  EXPECT_TRUE(api_keys().admits("")) << "no keys: open";
}

// Neither which key it is, nor how much of one is right, shows in what is done.
TEST(ApiKeys, AreComparedWithTheSameInstructionsWhateverIsSent) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer's allocator takes another way from call to call";
#endif
  std::string file;
  for (char last = 'a'; last <= 'h'; ++last)
    file += "a-key-of-24-characters-" + std::string(1, last) + "\n";
  const auto keys = api_keys::parse(file, "keys.txt");
  ASSERT_TRUE(keys);
  const auto count = [&](const std::string& sent) {
    const std::string header = "Bearer " + sent;
    volatile bool admitted = keys->admits(header);
    return base::test::instructions_of([&] { admitted = keys->admits(header); });
  };
  const long first = count("a-key-of-24-characters-a");
  if (first < 0) GTEST_SKIP() << "processes cannot be traced here";
  EXPECT_EQ(count("a-key-of-24-characters-h"), first);
  EXPECT_EQ(count("a-key-of-24-characters-x"), count("x-key-of-24-characters-a"));
}

TEST(ApiKeys, RefusesLinesWithoutShowingThem) {
  struct line_case {
    std::string text;
    std::string part;
  };
  const std::vector<line_case> cases = {
      {"", "no key in it"},
      {"# only\n", "no key in it"},
      {"short\n", "line 1"},
      {std::string(key) + "\nsecret part\n", "line 2"},
      {std::string(513, 'k'), "line 1"},
      {"name:" + std::string(64, 'g') + std::string(512, 'k'), "line 1"},
  };
  for (const line_case& of : cases) {
    const auto keys = api_keys::parse(of.text, "keys.txt");
    ASSERT_FALSE(keys.has_value()) << of.text;
    EXPECT_NE(keys.error().message.find(of.part), std::string::npos) << keys.error().message;
    EXPECT_EQ(keys.error().message.find("secret"), std::string::npos);
    EXPECT_EQ(keys.error().message.find("short"), std::string::npos);
  }
}

TEST(Access, NeedsAKeyWhereItSays) {
  world w([](openai_server_options& options) {
    options.keys = api_keys::parse(std::string(key) + "\n", "k").value();
  });
  struct access_case {
    const char* method;
    const char* path;
    bool from_elsewhere;  // allowed without a key
    bool from_loopback;
  };
  const std::vector<access_case> cases = {
      {"GET", "/", true, true},
      {"GET", "/health", false, true},
      {"GET", "/ready", false, true},
      {"GET", "/metrics", false, true},
      {"GET", "/version", false, false},
      {"GET", "/v1/models", false, false},
      {"GET", "/v1/models/small", false, false},
      {"GET", "/troupe/gang", false, false},
      {"POST", "/v1/chat/completions", false, false},
      {"POST", "/v1/completions", false, false},
      {"POST", "/tokenize", false, false},
      {"POST", "/detokenize", false, false},
  };
  for (const access_case& of : cases) {
    for (const bool loopback : {false, true}) {
      SCOPED_TRACE(std::string(of.path) + (loopback ? " from loopback" : " from elsewhere"));
      w.loopback = loopback;
      const auto open = w.begin(of.method, of.path, "{}");
      ASSERT_TRUE(w.http.run_until([&] { return open->ended(); }));
      const bool allowed = loopback ? of.from_loopback : of.from_elsewhere;
      EXPECT_EQ(open->status == 401, !allowed) << open->status;
      if (!allowed) {
        EXPECT_EQ(open->header("www-authenticate"), "Bearer");
        EXPECT_EQ(open->parsed()["error"]["code"], "invalid_api_key");
      }
      const auto wrong = w.begin(of.method, of.path, "{}", with_key("not-a-key-of-this-server"));
      ASSERT_TRUE(w.http.run_until([&] { return wrong->ended(); }));
      EXPECT_EQ(wrong->status == 401, !allowed);
      const auto right = w.begin(of.method, of.path, "{}", with_key(key));
      ASSERT_TRUE(w.http.run_until([&] { return right->ended(); }));
      EXPECT_NE(right->status, 401);
    }
  }
  EXPECT_EQ(w.gang.count(), 0U);
}

TEST(Access, OpensMetricsWhenTold) {
  world w([](openai_server_options& options) {
    options.keys = api_keys::parse(std::string(key) + "\n", "k").value();
    options.open_metrics = true;
  });
  w.loopback = false;
  EXPECT_EQ(w.get("/metrics")->status, 200);
  EXPECT_EQ(w.get("/troupe/gang")->status, 401);
}

// --- routes -------------------------------------------------------------------------------------

TEST(Routes, AnswerUnknownPathsMethodsAndTypes) {
  world w;
  const auto unknown = w.get("/v2/chat");
  EXPECT_EQ(unknown->status, 404);
  EXPECT_EQ(unknown->parsed()["error"]["code"], "not_found");
  const auto get = w.get("/v1/chat/completions");
  EXPECT_EQ(get->status, 405);
  EXPECT_EQ(get->header("allow"), "POST");
  const auto post = w.post("/v1/models", "{}");
  EXPECT_EQ(post->status, 405);
  EXPECT_EQ(post->header("allow"), "GET, HEAD");
  const auto form = w.begin("POST", "/v1/completions", R"({"prompt":"a"})",
                            {{"content-type", "application/x-www-form-urlencoded"}});
  EXPECT_EQ(form->status, 415);
  const auto typed = w.begin("POST", "/v1/completions", "{}",
                             {{"content-type", "Application/JSON ; charset=utf-8"}});
  ASSERT_TRUE(w.http.run_until([&] { return typed->ended(); }));
  EXPECT_EQ(typed->status, 400);
  EXPECT_EQ(w.begin("HEAD", "/health")->status, 200);
}

TEST(Routes, GiveErrorsOfTheHttpServerTheSameShape) {
  const auto [type, body] = openai_server::error_body(413, "the body is \"large\"");
  EXPECT_EQ(type, "application/json");
  EXPECT_EQ(json::parse(body), json({{"error",
                                      {{"message", "the body is \"large\""},
                                       {"type", "invalid_request_error"},
                                       {"param", nullptr},
                                       {"code", "content_too_large"}}}}));
}

TEST(Models, ListsEveryName) {
  world w;
  const json list = w.get("/v1/models")->parsed();
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2U);
  EXPECT_EQ(list["data"][1], json({{"id", "org/small"},
                                   {"object", "model"},
                                   {"created", 1'700'000'000},
                                   {"owned_by", "troupe"},
                                   {"root", "models/small"},
                                   {"parent", nullptr},
                                   {"max_model_len", 512}}));
  EXPECT_EQ(w.get("/v1/models/org/small")->parsed(), list["data"][1]);
  EXPECT_EQ(w.get("/v1/models/org%2Fsmall")->parsed(), list["data"][1]);
  EXPECT_EQ(w.get("/v1/models/big")->status, 404);
  EXPECT_EQ(w.get("/v1/models/%zz%ff%00")->parsed()["error"]["code"], "model_not_found");
}

TEST(Health, TellsWhatItIsAskedFor) {
  bool lives = true;
  world w(
      [&](openai_server_options& options) { options.supervisor_lives = [&] { return lives; }; });
  EXPECT_EQ(w.get("/health")->status, 200);
  lives = false;
  EXPECT_EQ(w.get("/health")->status, 503);
  EXPECT_EQ(w.get("/ready")->parsed(), json({{"ready", true}, {"epoch", 1}}));
  w.gang.state.ready = false;
  w.gang.state.not_ready = "rank 1 loads its weights";
  const auto waiting = w.get("/ready");
  EXPECT_EQ(waiting->status, 503);
  EXPECT_EQ(waiting->parsed()["reason"], "rank 1 loads its weights");
  EXPECT_EQ(w.get("/version")->parsed()["version"], "0.1.0");
}

TEST(GangReport, TellsRanksAndCounts) {
  world w;
  w.gang.state.epoch = {0xFEDCBA9876543210U, 3};
  w.gang.state.ranks[1].state = actors::rank_state::loading;
  w.gang.state.ranks[1].detail = "lost: \"killed\"\n";
  const json report = w.get("/troupe/gang")->parsed();
  EXPECT_EQ(report["epoch"], json({{"incarnation", "fedcba9876543210"}, {"number", 3}}));
  EXPECT_EQ(report["ready"], true);
  EXPECT_EQ(report["ranks"][1], json({{"rank", 1},
                                      {"state", "loading"},
                                      {"node", "a"},
                                      {"detail", "lost: \"killed\"\n"},
                                      {"restarts", 0}}));
}

// --- metrics ------------------------------------------------------------------------------------

// Reads Prometheus' text format strictly: every sample belongs to a family announced before it.
std::map<std::string, double> read_metrics(const std::string& page) {
  std::map<std::string, double> out;
  std::map<std::string, std::string> types;
  std::istringstream lines(page);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    if (line.starts_with("# ")) {
      std::string hash;
      std::string kind;
      std::string name;
      std::string rest;
      words >> hash >> kind >> name >> rest;
      EXPECT_TRUE(kind == "HELP" || kind == "TYPE") << line;
      if (kind == "TYPE") {
        EXPECT_TRUE(types.emplace(name, rest).second) << "twice: " << line;
      }
      continue;
    }
    const std::size_t space = line.rfind(' ');
    const std::string series = line.substr(0, space);
    std::string name = series.substr(0, series.find('{'));
    if (!types.contains(name)) {
      for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
        if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
      }
      EXPECT_EQ(types[name], "histogram") << line;
    } else if (types[name] == "counter") {
      EXPECT_TRUE(name.ends_with("_total")) << line;
    }
    EXPECT_TRUE(series.ends_with('}')) << line;
    const double value = std::stod(line.substr(space + 1));
    EXPECT_TRUE(std::isfinite(value)) << line;
    EXPECT_TRUE(out.emplace(series, value).second) << "twice: " << line;
  }
  return out;
}

std::string series(const std::string& name, const std::string& more = {}) {
  return name + R"({model_name="small",engine="0")" + (more.empty() ? "" : "," + more) + "}";
}

TEST(Metrics, HaveVllmsNamesAndLabels) {
  world w;
  w.gang.state.running = 2;
  w.gang.state.waiting = 3;
  w.gang.state.kv_blocks_free = 25;
  const auto answer = w.get("/metrics");
  EXPECT_EQ(answer->header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  auto metrics = read_metrics(answer->body);
  EXPECT_EQ(metrics.at(series("vllm:num_requests_running")), 2);
  EXPECT_EQ(metrics.at(series("vllm:num_requests_waiting")), 3);
  EXPECT_EQ(metrics.at(series("vllm:kv_cache_usage_perc")), 0.75);
  for (const char* const name :
       {"vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
        "vllm:num_preemptions_total", "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_sum",
        "vllm:e2e_request_latency_seconds_count", "vllm:request_decode_time_seconds_count",
        "vllm:request_prompt_tokens_count", "vllm:request_generation_tokens_count",
        "vllm:request_time_per_output_token_seconds_count", "vllm:request_params_n_count",
        "vllm:request_params_max_tokens_count", "vllm:request_max_num_generation_tokens_count",
        "troupe_epoch", "troupe_repairs_total", "troupe_engine_steps_total"}) {
    EXPECT_TRUE(metrics.contains(series(name))) << name;
  }
  for (const char* const reason : {"stop", "length", "abort", "error"}) {
    EXPECT_TRUE(metrics.contains(
        series("vllm:request_success_total", "finished_reason=\"" + std::string(reason) + "\"")));
  }
  EXPECT_EQ(metrics.at(series("troupe_ranks", R"(state="serving")")), 2);
  EXPECT_TRUE(metrics.contains(series("vllm:time_to_first_token_seconds_bucket", R"(le="0.001")")));
  EXPECT_TRUE(metrics.contains(series("vllm:e2e_request_latency_seconds_bucket", R"(le="1.0")")));
  EXPECT_TRUE(metrics.contains(series("vllm:request_prompt_tokens_bucket", R"(le="500.0")")));
  EXPECT_NE(answer->body.find("vllm:cache_config_info{block_size=\"16\""), std::string::npos);
  EXPECT_NE(answer->body.find("vllm:lora_requests_info{max_lora=\"0\""), std::string::npos);
}

TEST(Metrics, MeasureWithTheClockAndOnlyGrow) {
  world w;
  const auto before = read_metrics(w.get("/metrics")->body);
  const auto pass = [&](int ms) {
    w.elapsed.store(w.elapsed.load() + std::chrono::milliseconds{ms});
  };
  const auto answer = w.ask_chat({{"n", 2}, {"max_tokens", 5}});
  pass(30);
  w.emit(0, {token_of(10, {}, 0), token_of(11, {}, 1)});
  pass(200);
  w.emit(0, {token_of(12, finish_reason::length, 0), token_of(13, finish_reason::stop, 1)});
  w.end(0);
  ASSERT_TRUE(answer->complete);
  w.post("/v1/completions", "{}");
  const auto after = read_metrics(w.get("/metrics")->body);
  for (const auto& [name, value] : before) {
    if (name.starts_with("vllm:num_requests") || name.starts_with("troupe_open")) continue;
    EXPECT_GE(after.at(name), value) << name;
  }
  const auto grown = [&](const std::string& name, const std::string& more = {}) {
    return after.at(series(name, more)) - before.at(series(name, more));
  };
  EXPECT_EQ(grown("vllm:time_to_first_token_seconds_count"), 2);
  EXPECT_NEAR(grown("vllm:time_to_first_token_seconds_sum"), 0.06, 1e-9);
  EXPECT_EQ(grown("vllm:time_to_first_token_seconds_bucket", R"(le="0.02")"), 0);
  EXPECT_EQ(grown("vllm:time_to_first_token_seconds_bucket", R"(le="0.04")"), 2);
  EXPECT_EQ(grown("vllm:time_to_first_token_seconds_bucket", R"(le="+Inf")"), 2);
  EXPECT_EQ(grown("vllm:inter_token_latency_seconds_count"), 2);
  EXPECT_NEAR(grown("vllm:inter_token_latency_seconds_sum"), 0.4, 1e-9);
  EXPECT_NEAR(grown("vllm:e2e_request_latency_seconds_sum"), 0.46, 1e-9);
  EXPECT_EQ(grown("vllm:request_success_total", R"(finished_reason="length")"), 1);
  EXPECT_EQ(grown("vllm:request_success_total", R"(finished_reason="stop")"), 1);
  EXPECT_EQ(grown("vllm:request_generation_tokens_sum"), 4);
  EXPECT_EQ(grown("vllm:request_params_n_sum"), 2);
  EXPECT_EQ(grown("vllm:request_params_max_tokens_sum"), 5);
  EXPECT_EQ(after.at(series("troupe_http_answers_total", R"(path="/v1/completions",status="400")")),
            1);
  EXPECT_EQ(
      after.at(series("troupe_http_answers_total", R"(path="/v1/chat/completions",status="200")")),
      1);
}

TEST(Metrics, HoldNoTextOfRequests) {
  world w;
  w.post("/v1/completions", R"({"model":"zebra-model","prompt":"zebra","user":"zebra"})");
  w.get("/zebra?zebra=1");
  EXPECT_EQ(w.get("/metrics")->body.find("zebra"), std::string::npos);
}

// --- the page -----------------------------------------------------------------------------------

TEST(Page, LoadsNothingFromElsewhere) {
  world w;
  const auto answer = w.get("/");
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->header("content-type"), "text/html; charset=utf-8");
  const std::string policy = answer->header("content-security-policy");
  EXPECT_TRUE(policy.starts_with("default-src 'none'; style-src 'sha256-")) << policy;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos);
  EXPECT_EQ(policy, page_policy());
  for (const char* const loaded : {"<script src", "<link rel=\"stylesheet\"", "@import", "url(",
                                   "https://", " style=", "onclick=\"", "innerHTML"}) {
    EXPECT_EQ(answer->body.find(loaded), std::string::npos) << loaded;
  }
}

}  // namespace
}  // namespace troupe::serving::test
