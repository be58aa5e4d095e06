#include "serving/request_metrics.hpp"

#include <fmt/format.h>

#include <vector>

#include "serving/gang_report.hpp"
#include "serving/metrics_text.hpp"

namespace troupe::serving {
namespace {

using buckets = std::vector<double>;

buckets first_token_buckets() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
          1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
}
buckets token_buckets() {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
          0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
}
buckets latency_buckets() {
  return {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
          30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
}

// 1, 2, 5, 10, 20, 50 ... up to `max`.
buckets one_two_five(std::int64_t max) {
  buckets out;
  for (std::int64_t decade = 1; decade <= max; decade *= 10) {
    for (const std::int64_t mantissa : {1, 2, 5}) {
      if (mantissa * decade <= max) out.push_back(static_cast<double>(mantissa * decade));
    }
    if (decade > max / 10) break;
  }
  return out;
}

constexpr std::array<std::string_view, 4> finish_names = {"stop", "length", "abort", "error"};

double number(std::uint64_t value) { return static_cast<double>(value); }
double number(std::int64_t value) { return static_cast<double>(value); }

void write_scheduler(metrics_text& out, const metrics_context& context) {
  const actors::gang_status& gang = context.gang;
  out.gauge("vllm:num_requests_running", "Number of requests in model execution batches.",
            number(gang.running));
  out.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.",
            number(gang.waiting));
  const double used = gang.kv_blocks_total > 0
                          ? 1.0 - number(gang.kv_blocks_free) / number(gang.kv_blocks_total)
                          : 0.0;
  out.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", used);
  out.counter("vllm:prefix_cache_queries_total",
              "Prefix cache queries, in terms of number of queried tokens.",
              number(gang.prefix_tokens_queried));
  out.counter("vllm:prefix_cache_hits_total",
              "Prefix cache hits, in terms of number of cached tokens.",
              number(gang.prefix_tokens_hit));
  out.counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.",
              number(gang.preemptions));
  out.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.",
              number(gang.prompt_tokens));
  out.counter("vllm:generation_tokens_total", "Number of generation tokens processed.",
              number(gang.generation_tokens));
}

void write_requests(metrics_text& out, const request_metrics& counted) {
  out.family("vllm:request_success_total", "counter", "Count of successfully processed requests.");
  for (std::size_t kind = 0; kind < finish_names.size(); ++kind) {
    out.sample("vllm:request_success_total",
               fmt::format("finished_reason=\"{}\"", finish_names[kind]),
               number(counted.finished[kind]));
  }
  out.distribution("vllm:request_prompt_tokens", "Number of prefill tokens processed.",
                   counted.prompt_tokens);
  out.distribution("vllm:request_generation_tokens", "Number of generation tokens processed.",
                   counted.generation_tokens);
  out.distribution("vllm:request_max_num_generation_tokens",
                   "Histogram of maximum number of requested generation tokens.",
                   counted.max_generation_tokens);
  out.distribution("vllm:request_params_n", "Histogram of the n request parameter.",
                   counted.params_n);
  out.distribution("vllm:request_params_max_tokens",
                   "Histogram of the max_tokens request parameter.", counted.params_max_tokens);
  out.distribution("vllm:time_to_first_token_seconds",
                   "Histogram of time to first token in seconds.", counted.time_to_first_token);
  out.distribution("vllm:inter_token_latency_seconds",
                   "Histogram of inter-token latency in seconds.", counted.inter_token_latency);
  out.distribution("vllm:request_time_per_output_token_seconds",
                   "Histogram of time_per_output_token_seconds per request.",
                   counted.time_per_output_token);
  out.distribution("vllm:e2e_request_latency_seconds",
                   "Histogram of e2e request latency in seconds.", counted.e2e_latency);
  out.distribution("vllm:request_decode_time_seconds",
                   "Histogram of time spent in DECODE phase for request.", counted.decode_time);
}

void write_information(metrics_text& out, const metrics_context& context) {
  out.family("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
  out.bare_sample(
      "vllm:cache_config_info",
      fmt::format(R"(block_size="{}",cache_dtype={},enable_prefix_caching="{}",)"
                  R"(engine="0",num_gpu_blocks="{}")",
                  context.model.block_size, label_value(context.model.kv_cache_dtype),
                  context.model.prefix_caching ? "True" : "False", context.gang.kv_blocks_total),
      1);
  // The value is the time of the sample: routers take the newest of several series.
  out.family("vllm:lora_requests_info", "gauge", "Running stats on lora requests.");
  out.bare_sample("vllm:lora_requests_info",
                  R"(max_lora="0",running_lora_adapters="",waiting_lora_adapters="")",
                  static_cast<double>(context.now.count()));
  out.family("troupe_build_info", "gauge", "The version of this server. Always 1.");
  out.sample("troupe_build_info",
             fmt::format("version={},numerics={},data_plane={}", label_value(context.version),
                         label_value(context.gang.numerics), label_value(context.gang.data_plane)),
             1);
}

void write_ranks(metrics_text& out, const actors::gang_status& gang) {
  out.family("troupe_ranks", "gauge", "Ranks of the gang by state.");
  for (const actors::rank_state state : all_rank_states) {
    std::uint64_t ranks = 0;
    for (const actors::rank_status& rank : gang.ranks) ranks += rank.state == state ? 1U : 0U;
    out.sample("troupe_ranks", fmt::format("state=\"{}\"", name_of(state)), number(ranks));
  }
  out.family("troupe_rank_restarts_total", "counter",
             "Restarts of each rank's process in this life of the supervisor.");
  for (const actors::rank_status& rank : gang.ranks) {
    out.sample("troupe_rank_restarts_total", fmt::format("rank=\"{}\"", rank.rank.value),
               number(rank.restarts));
  }
}

void write_gang(metrics_text& out, const actors::gang_status& gang) {
  out.gauge("troupe_ready", "1 when a decode step finished in this epoch within the last 10 s.",
            gang.ready ? 1 : 0);
  out.gauge("troupe_draining", "1 when no new requests are taken.", gang.draining ? 1 : 0);
  out.gauge("troupe_epoch", "Number of the epoch; counts up with every formation of the gang.",
            number(gang.epoch.number));
  write_ranks(out, gang);
  out.counter("troupe_repairs_total", "Epochs that were ended by a lost rank.",
              number(gang.repairs));
  out.counter("troupe_stale_messages_dropped_total", "Messages of an older epoch.",
              number(gang.stale_dropped));
  out.counter("troupe_engine_steps_total", "Steps of the engine.", number(gang.steps));
  out.counter("troupe_prefill_tokens_computed_total",
              "Prompt tokens that were computed, again after a preemption or a repair included.",
              number(gang.prefill_tokens_computed));
  out.counter("troupe_requests_carried_total",
              "Times that a request went on in another epoch of the gang.", number(gang.carried));
  out.counter("troupe_requests_cancelled_total", "Requests that the gang ended for their client.",
              number(gang.cancelled));
  out.counter("troupe_steps_after_cancel_total",
              "Steps that began after a client had gone and may have computed for its request "
              "still; at most one a cancelled request.",
              number(gang.steps_after_cancel));
  out.family("troupe_data_plane_bytes_total", "counter", "Bytes moved between ranks, by rank 0.");
  out.sample("troupe_data_plane_bytes_total", R"(direction="sent")",
             number(gang.data_plane_bytes_sent));
  out.sample("troupe_data_plane_bytes_total", R"(direction="received")",
             number(gang.data_plane_bytes_received));
}

void write_http(metrics_text& out, const request_metrics& counted, const metrics_context& context) {
  out.gauge("troupe_open_requests", "Requests for tokens that are not answered in full.",
            static_cast<double>(context.open_requests));
  out.gauge("troupe_text_queue", "Requests that wait to be tokenised.",
            static_cast<double>(context.text_queue));
  out.counter("troupe_text_queue_full_total", "Requests refused because that queue was full.",
              number(counted.text_queue_full));
  out.counter("troupe_clients_gone_total", "Clients that left before their answer was complete.",
              number(counted.clients_gone));
  out.counter("troupe_stream_errors_total", "Streams that were begun and ended with an error.",
              number(counted.stream_errors));
  out.family("troupe_http_answers_total", "counter", "Answers by route and status.");
  for (const auto& [key, count] : counted.answers) {
    out.sample("troupe_http_answers_total",
               fmt::format("path=\"{}\",status=\"{}\"", key.first, key.second), number(count));
  }
  out.gauge("troupe_http_connections", "Open connections.", number(context.http.connections));
  out.counter("troupe_http_requests_total", "Requests read.", number(context.http.requests));
  out.counter("troupe_http_refused_total", "Requests refused by a bound or as malformed.",
              number(context.http.refused));
  out.counter("troupe_http_cut_slow_total", "Answers cut because their reader was too slow.",
              number(context.http.cut_slow));
  out.counter("troupe_http_sent_bytes_total", "Bytes sent.", number(context.http.bytes_sent));
}

}  // namespace

request_metrics::request_metrics(std::int64_t max_model_len)
    : time_to_first_token(first_token_buckets()),
      inter_token_latency(token_buckets()),
      time_per_output_token(token_buckets()),
      e2e_latency(latency_buckets()),
      decode_time(latency_buckets()),
      prompt_tokens(one_two_five(max_model_len)),
      generation_tokens(one_two_five(max_model_len)),
      max_generation_tokens(one_two_five(max_model_len)),
      params_n({1, 2, 5, 10, 20}),
      params_max_tokens(one_two_five(max_model_len)) {}

std::string metrics_page(const request_metrics& counted, const metrics_context& context) {
  metrics_text out("model_name=" + label_value(context.model.names.front()) + R"(,engine="0")");
  write_scheduler(out, context);
  write_requests(out, counted);
  write_information(out, context);
  write_gang(out, context.gang);
  write_http(out, counted, context);
  return out.take();
}

}  // namespace troupe::serving
