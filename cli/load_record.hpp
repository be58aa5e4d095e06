// What a load generator saw of each request, and what that comes to.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace troupe::cli {

// Server-sent events of a streamed completion, as the bytes come. Text and the server's own count
// of tokens are looked for; nothing else is kept.
class answer_events {
 public:
  // Events with text that are whole now.
  [[nodiscard]] int push(std::string_view bytes);
  [[nodiscard]] bool done() const noexcept { return done_; }  // [DONE] came
  [[nodiscard]] const std::string& error() const noexcept { return error_; }
  [[nodiscard]] std::int64_t prompt_tokens() const noexcept { return prompt_tokens_; }
  [[nodiscard]] std::int64_t completion_tokens() const noexcept { return completion_tokens_; }

 private:
  bool take(std::string_view event);

  static constexpr std::size_t event_bytes_max = std::size_t{1} << 20;
  std::string unread_;
  std::string error_;
  std::int64_t prompt_tokens_ = 0;
  std::int64_t completion_tokens_ = 0;
  bool done_ = false;
};

// Units: s, from the beginning of the run.
struct request_record {
  double due_s = 0.0;   // when it was to be sent
  double sent_s = 0.0;  // when it was
  std::optional<double> first_s = {};
  double last_s = 0.0;  // of its events with text
  std::vector<float> gaps_s = {};
  double end_s = 0.0;
  std::int64_t prompt_tokens = 0;      // the server's count
  std::int64_t completion_tokens = 0;  // the server's count; events where it gives none
  std::string failure = {};            // empty: it ended whole
};

struct goodput_limits {
  std::optional<double> ttft_ms = {};
  std::optional<double> itl_ms = {};  // of a request's mean gap
  std::optional<double> e2el_ms = {};
  [[nodiscard]] bool any() const noexcept { return ttft_ms || itl_ms || e2el_ms; }
};
// "ttft:500", "itl:50", "e2el:10000", several separated by blanks or commas.
[[nodiscard]] base::result<goodput_limits> parse_goodput(std::string_view text);

// The smallest value that so large a share of them does not exceed (nearest rank). Range: share
// 0 .. 1. `sorted` is not empty.
[[nodiscard]] double percentile(const std::vector<double>& sorted, double share);

// `open_loop`: latencies count from when a request was due, so that a server that is behind does
// not look fast; else from when it was sent.
[[nodiscard]] nlohmann::ordered_json load_report(const std::vector<request_record>& records,
                                                 const goodput_limits& limits, bool open_loop);
[[nodiscard]] nlohmann::ordered_json json_of(const request_record& record);

// One picture: shares of requests by time to first token and by inter-token latency.
[[nodiscard]] std::string plot_of(const std::vector<request_record>& records, bool open_loop);

}  // namespace troupe::cli
