// What a load generator asks for and when: lengths drawn from distributions, arrivals at a rate, or
// both from a trace. Drawn from a seed: the same plan on every machine.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace troupe::cli {

// "512", "uniform:100-900", "lognormal:MEDIAN,SIGMA" (of the logarithm), "exponential:MEAN".
// Drawn numbers are rounded and clamped to 1 .. tokens_max.
class length_distribution {
 public:
  static constexpr std::int64_t tokens_max = std::int64_t{1} << 24;
  // Errors: invalid_argument, saying what may be written.
  [[nodiscard]] static base::result<length_distribution> parse(std::string_view text);
  [[nodiscard]] std::int64_t draw(std::mt19937_64& random) const;
  // The one length; none where there are several.
  [[nodiscard]] std::optional<std::int64_t> fixed() const;

 private:
  enum class shape : std::uint8_t { fixed, uniform, lognormal, exponential };
  shape of_ = shape::fixed;
  double first_ = 1.0;
  double second_ = 0.0;
};

struct planned_request {
  double arrival_s = 0.0;  // from the beginning
  std::int64_t prompt_tokens = 1;
  std::int64_t max_tokens = 1;
};

struct load_options {
  std::int64_t requests = 1000;
  // Requests a second; infinite: all at once.
  double request_rate = std::numeric_limits<double>::infinity();
  double burstiness =
      1.0;  // shape of the gamma distribution of gaps: 1 is Poisson, less is burstier
  length_distribution prompt_tokens;
  length_distribution max_tokens;
  std::uint64_t seed = 0;
};

[[nodiscard]] std::vector<planned_request> plan_load(const load_options& options);

// JSON lines: {"arrival_s": 0.5 | "timestamp": 500 (ms), "prompt_tokens" | "input_length": 100,
// "max_tokens" | "output_length": 50}; other fields are ignored. At most `requests_max` of them.
// Errors: invalid_argument naming the line.
[[nodiscard]] base::result<std::vector<planned_request>> read_trace(std::string_view text,
                                                                    std::size_t requests_max);

}  // namespace troupe::cli
