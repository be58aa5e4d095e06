// Writes Prometheus' text format, version 0.0.4.
//
//   metrics_text out(R"(model_name="demo",engine="0")");
//   out.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", 3);
#pragma once

#include <string>
#include <string_view>

#include "serving/histogram.hpp"

namespace troupe::serving {

// A label's value, in quotes: backslash, quote and line feed escaped.
[[nodiscard]] std::string label_value(std::string_view text);

class metrics_text {
 public:
  // `labels` go on every sample that is written without labels of its own.
  explicit metrics_text(std::string labels) : labels_(std::move(labels)) {}

  // `name` of a counter ends in _total.
  void counter(std::string_view name, std::string_view help, double value);
  void gauge(std::string_view name, std::string_view help, double value);
  void distribution(std::string_view name, std::string_view help, const histogram& values);

  // A family whose samples have further labels: family(), then a sample() each.
  void family(std::string_view name, std::string_view type, std::string_view help);
  void sample(std::string_view name, const std::string& more_labels, double value);
  // A sample with these labels only.
  void bare_sample(std::string_view name, const std::string& labels, double value);

  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string labels_;
  std::string out_;
};

}  // namespace troupe::serving
