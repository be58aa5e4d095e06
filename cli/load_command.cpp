#include "cli/load_command.hpp"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "cli/bounded_file.hpp"
#include "cli/load_plan.hpp"
#include "cli/load_record.hpp"
#include "cli/print_report.hpp"
#include "net/http_client.hpp"
#include "net/http_streams.hpp"

namespace troupe::cli {
namespace {

using nlohmann::json;
using steady = std::chrono::steady_clock;

constexpr std::size_t trace_bytes_max = std::size_t{64} << 20;
constexpr std::size_t requests_max = std::size_t{1} << 20;

base::result<std::vector<net::header_field>> headers_of(const load_flags& flags) {
  std::vector<net::header_field> headers = {{"content-type", "application/json"}};
  if (flags.api_key_file.empty()) return headers;
  TROUPE_TRY(text, read_bounded_file("--api-key-file", flags.api_key_file, 1U << 20));
  const std::size_t end = text.find_first_of(" \r\n");
  headers.emplace_back("authorization", "Bearer " + text.substr(0, end));
  return headers;
}

std::string base_url(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  return url;
}

base::result<load_options> options_of(const load_flags& flags) {
  load_options options{.requests = flags.num_prompts,
                       .burstiness = flags.burstiness,
                       .prompt_tokens = {},
                       .max_tokens = {},
                       .seed = flags.seed};
  char* end = nullptr;
  options.request_rate = std::strtod(flags.request_rate.c_str(), &end);
  if (*end != '\0' || !(options.request_rate > 0.0)) {
    return base::fail(
        base::error_code::invalid_argument, "cli",
        "--request-rate: '" + flags.request_rate + "' is no rate; write requests a second, or inf");
  }
  TROUPE_TRY(prompt, length_distribution::parse(flags.prompt_tokens));
  options.prompt_tokens = prompt;
  TROUPE_TRY(answer, length_distribution::parse(flags.max_tokens));
  options.max_tokens = answer;
  return options;
}

// A server as it is asked for its models and its tokens.
class asked_server {
 public:
  asked_server(std::string url, std::vector<net::header_field> headers)
      : url_(std::move(url)), headers_(std::move(headers)) {}

  base::result<std::string> first_model() const {
    TROUPE_TRY(reply, net::http_fetch({.url = url_ + "/v1/models", .headers = headers_}));
    const json models = json::parse(reply.body, nullptr, false);
    if (reply.status == 200 && models.is_object() && !models.value("data", json()).empty()) {
      return models["data"][0].value("id", "");
    }
    return base::fail(base::error_code::unavailable, "cli",
                      url_ + "/v1/models answered " + std::to_string(reply.status) + ": " +
                          reply.body.substr(0, 200) + "; give --model");
  }

  // Token ids that the model knows, to make prompts of; empty: the server does not tell.
  std::vector<std::int32_t> some_tokens(const std::string& model) const {
    const json body = {
        {"model", model},
        {"prompt",
         "The gang of ranks serves one model across many machines, and a lost rank is "
         "started again while the others keep what they have loaded; numbers such as "
         "12, 345 and 6789 help, as do (brackets), \"quotes\" and new lines.\n"},
        {"add_special_tokens", false}};
    const auto reply = net::http_fetch(
        {.method = "POST", .url = url_ + "/tokenize", .headers = headers_, .body = body.dump()});
    if (!reply || reply->status != 200) return {};
    const json told = json::parse(reply->body, nullptr, false);
    if (!told.is_object() || !told.value("tokens", json()).is_array()) return {};
    std::vector<std::int32_t> ids;
    for (const json& id : told["tokens"]) {
      if (id.is_number_integer()) ids.push_back(id.get<std::int32_t>());
    }
    return ids;
  }

 private:
  const std::string url_;
  const std::vector<net::header_field> headers_;
};

class load_run {
 public:
  load_run(const load_flags& flags, std::string model, std::vector<std::int32_t> tokens,
           std::vector<planned_request> plan, net::http_streams& streams)
      : flags_(flags),
        model_(std::move(model)),
        tokens_(std::move(tokens)),
        plan_(std::move(plan)),
        streams_(streams),
        records_(plan_.size()) {}

  std::vector<request_record> run() {
    begin_ = steady::now() + std::chrono::milliseconds(50);
    if (!plan_.empty()) arrange(0);
    streams_.run();
    return std::move(records_);
  }

 private:
  [[nodiscard]] double now_s() const {
    return std::chrono::duration<double>(steady::now() - begin_).count();
  }

  // One timer at a time: a plan may have a million arrivals.
  void arrange(std::size_t index) {
    const auto due = begin_ + std::chrono::duration_cast<steady::duration>(
                                  std::chrono::duration<double>(plan_[index].arrival_s));
    streams_.at(due, [this, index] {
      records_[index].due_s = plan_[index].arrival_s;
      waiting_.push_back(index);
      start_waiting();
      if (index + 1 < plan_.size()) arrange(index + 1);
    });
  }

  void start_waiting() {
    while (!waiting_.empty() && (flags_.max_concurrency == 0 || open_ < flags_.max_concurrency)) {
      const std::size_t index = waiting_.front();
      waiting_.pop_front();
      ++open_;
      start(index);
    }
  }

  void start(std::size_t index) {
    auto events = std::make_shared<answer_events>();
    records_[index].sent_s = now_s();
    streams_.post(body_of(index), {.piece =
                                       [this, index, events](std::string_view bytes) {
                                         note(records_[index], events->push(bytes));
                                       },
                                   .end =
                                       [this, index, events](const net::http_stream_end& end) {
                                         finish(records_[index], *events, end);
                                         --open_;
                                         start_waiting();
                                       }});
  }

  void note(request_record& of, int texts) const {
    const double now = now_s();
    for (int i = 0; i < texts; ++i) {
      if (of.first_s) {
        of.gaps_s.push_back(static_cast<float>(now - of.last_s));
      } else {
        of.first_s = now;
      }
      of.last_s = now;
    }
  }

  void finish(request_record& of, const answer_events& events,
              const net::http_stream_end& end) const {
    of.end_s = now_s();
    of.prompt_tokens = events.prompt_tokens();
    of.completion_tokens = events.completion_tokens();
    if (of.completion_tokens == 0 && of.first_s) {
      of.completion_tokens = static_cast<std::int64_t>(of.gaps_s.size()) + 1;
    }
    if (end.error) {
      of.failure = end.error->message;
    } else if (end.status != 200) {
      of.failure = "status " + std::to_string(end.status);
    } else if (!events.error().empty()) {
      of.failure = events.error();
    } else if (!events.done()) {
      of.failure = "the stream ended without [DONE]";
    }
  }

  // Drawn anew for each request from its number: nothing is kept of a prompt.
  [[nodiscard]] std::string body_of(std::size_t index) const {
    std::mt19937_64 shared(flags_.seed ^ 0x9E3779B97F4A7C15U);
    std::mt19937_64 own(flags_.seed + 0x100000001B3U * (index + 1));
    const bool ids = !tokens_.empty() && flags_.endpoint == "/v1/completions";
    json prompt = json::array();
    std::string text;
    for (std::int64_t i = 0; i < plan_[index].prompt_tokens; ++i) {
      std::mt19937_64& random = i < flags_.prefix_tokens ? shared : own;
      if (ids) {
        prompt.push_back(tokens_[random() % tokens_.size()]);
      } else {
        text += i == 0 ? "" : " ";
        text += static_cast<char>('a' + random() % 26);
      }
    }
    json body = {{"model", model_},    {"max_tokens", plan_[index].max_tokens},
                 {"ignore_eos", true}, {"temperature", 0.0},
                 {"stream", true},     {"stream_options", {{"include_usage", true}}}};
    if (flags_.endpoint == "/v1/completions") {
      body["prompt"] = ids ? std::move(prompt) : json(text);
    } else {
      body["messages"] = {{{"role", "user"}, {"content", text}}};
    }
    return body.dump();
  }

  const load_flags& flags_;
  const std::string model_;
  const std::vector<std::int32_t> tokens_;
  const std::vector<planned_request> plan_;
  net::http_streams& streams_;
  std::vector<request_record> records_;
  steady::time_point begin_;
  std::deque<std::size_t> waiting_;
  std::int64_t open_ = 0;
};

base::result<void> write_file(const char* flag, const std::string& path, const std::string& text) {
  if (path.empty()) return {};
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (file.flush()) return {};
  return base::fail(base::error_code::unavailable, "cli",
                    std::string(flag) + ": cannot write " + path);
}

base::result<void> write_files(const load_flags& flags, const std::vector<request_record>& records,
                               bool open_loop) {
  TROUPE_TRY_VOID(write_file("--plot", flags.plot, plot_of(records, open_loop)));
  std::string lines;
  for (const request_record& of : records) {
    if (!flags.save_requests.empty()) lines += json_of(of).dump() + "\n";
  }
  return write_file("--save-requests", flags.save_requests, lines);
}

base::result<nlohmann::ordered_json> load(const load_flags& flags) {
  TROUPE_TRY(options, options_of(flags));
  TROUPE_TRY(limits, parse_goodput(flags.goodput));
  TROUPE_TRY(headers, headers_of(flags));
  std::vector<planned_request> plan;
  if (flags.trace.empty()) {
    plan = plan_load(options);
  } else {
    TROUPE_TRY(text, read_bounded_file("--trace", flags.trace, trace_bytes_max));
    TROUPE_TRY(read, read_trace(text, requests_max));
    plan = std::move(read);
  }
  const std::string url = base_url(flags.url);
  const asked_server server(url, headers);
  std::string model = flags.model;
  if (model.empty()) {
    TROUPE_TRY(first, server.first_model());
    model = std::move(first);
  }
  TROUPE_TRY(streams, net::http_streams::open({.url = url + flags.endpoint,
                                               .headers = std::move(headers),
                                               .patience = std::chrono::seconds(flags.timeout_s)}));
  const auto tokens = server.some_tokens(model);
  const std::vector<request_record> records =
      load_run(flags, model, tokens, std::move(plan), *streams).run();
  const bool open_loop = flags.max_concurrency == 0;
  TROUPE_TRY_VOID(write_files(flags, records, open_loop));
  nlohmann::ordered_json out = {{"url", url}, {"model", model}};
  out.update(load_report(records, limits, open_loop));
  return out;
}

}  // namespace

exit_code run_load(const load_flags& flags) {
  const auto report_of = load(flags);
  if (!report_of) return report(report_of.error());
  const exit_code printed = print_report(*report_of, flags.output);
  return (*report_of)["completed"] != 0 ? printed : exit_code::failed;
}

}  // namespace troupe::cli
