#include "serving/metrics_text.hpp"

#include <fmt/format.h>

#include <iterator>

namespace troupe::serving {

std::string label_value(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

void metrics_text::family(std::string_view name, std::string_view type, std::string_view help) {
  fmt::format_to(std::back_inserter(out_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

void metrics_text::bare_sample(std::string_view name, const std::string& labels, double value) {
  fmt::format_to(std::back_inserter(out_), "{}{{{}}} {}\n", name, labels, value);
}

void metrics_text::sample(std::string_view name, const std::string& more_labels, double value) {
  bare_sample(name, more_labels.empty() ? labels_ : labels_ + ',' + more_labels, value);
}

void metrics_text::counter(std::string_view name, std::string_view help, double value) {
  family(name, "counter", help);
  sample(name, {}, value);
}

void metrics_text::gauge(std::string_view name, std::string_view help, double value) {
  family(name, "gauge", help);
  sample(name, {}, value);
}

void metrics_text::distribution(std::string_view name, std::string_view help,
                                const histogram& values) {
  family(name, "histogram", help);
  const std::string bucket = std::string(name) + "_bucket";
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < values.bounds().size(); ++i) {
    sum += values.counts()[i];
    // As the Python client writes them: 1.0, not 1.
    const double bound = values.bounds()[i];
    const bool whole = bound == static_cast<double>(static_cast<std::int64_t>(bound));
    sample(bucket, whole ? fmt::format("le=\"{:.1f}\"", bound) : fmt::format("le=\"{}\"", bound),
           static_cast<double>(sum));
  }
  sum += values.counts().back();
  sample(bucket, R"(le="+Inf")", static_cast<double>(sum));
  sample(std::string(name) + "_sum", {}, values.sum());
  sample(std::string(name) + "_count", {}, static_cast<double>(sum));
}

}  // namespace troupe::serving
