// What this folder counts, and the page of metrics made of it and of the gang's own figures.
//
// Names, labels, help texts and buckets are vLLM's where vLLM has the figure, so that routers,
// autoscalers and dashboards need no change (Source: vllm/v1/metrics/loggers.py); all others begin
// with troupe_. No label ever holds text of a request. HTTP thread only.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "actors/gang_service.hpp"
#include "net/http_server.hpp"
#include "serving/histogram.hpp"
#include "serving/openai_server.hpp"

namespace troupe::serving {

// vLLM's words, in its order.
enum class finish_kind : std::uint8_t { stop, length, abort, error };

struct request_metrics {
  explicit request_metrics(std::int64_t max_model_len);

  // Per sequence, as in vLLM: a request with n = 3 is three.
  histogram time_to_first_token;
  histogram inter_token_latency;
  histogram time_per_output_token;  // mean of one sequence
  histogram e2e_latency;
  histogram decode_time;
  histogram prompt_tokens;
  histogram generation_tokens;
  histogram max_generation_tokens;  // the longest of a request's n
  histogram params_n;
  histogram params_max_tokens;
  std::array<std::uint64_t, 4> finished{};  // by finish_kind

  std::uint64_t clients_gone = 0;
  std::uint64_t text_queue_full = 0;
  std::uint64_t stream_errors = 0;  // streams that were begun and then cut with an error
  // (path of the route, status) -> answers. Routes are a fixed set: a path nobody has is "other".
  std::map<std::pair<std::string_view, int>, std::uint64_t> answers;
};

// What /metrics shows besides.
struct metrics_context {
  const served_model& model;
  actors::gang_status gang;
  net::http_server_counters http;
  std::size_t open_requests = 0;
  std::size_t text_queue = 0;
  std::chrono::seconds now{};  // unix time, of vllm:lora_requests_info
  std::string version;
};

[[nodiscard]] std::string metrics_page(const request_metrics& counted,
                                       const metrics_context& context);

}  // namespace troupe::serving
