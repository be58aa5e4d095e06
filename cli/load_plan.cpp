#include "cli/load_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace troupe::cli {
namespace {

using nlohmann::json;

std::optional<double> number(std::string_view text) {
  const std::string digits(text);
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  if (digits.empty() || *end != '\0' || !std::isfinite(value)) return std::nullopt;
  return value;
}

// The two numbers around a separator.
std::optional<std::pair<double, double>> two_numbers(std::string_view text, char between) {
  const std::size_t at = text.find(between);
  if (at == std::string_view::npos) return std::nullopt;
  const auto a = number(text.substr(0, at));
  const auto b = number(text.substr(at + 1));
  if (!a || !b) return std::nullopt;
  return std::pair(*a, *b);
}

std::optional<double> field(const json& line, const char* name, const char* other) {
  for (const char* const key : {name, other}) {
    const auto found = line.find(key);
    if (found != line.end() && found->is_number()) return found->get<double>();
  }
  return std::nullopt;
}

base::result<planned_request> read_line(std::string_view text, std::size_t number) {
  const auto refused = [&](const std::string& why) {
    return base::fail(base::error_code::invalid_argument, "cli",
                      "--trace: line " + std::to_string(number) + ": " + why);
  };
  const json line = json::parse(text, nullptr, false);
  if (!line.is_object()) return refused("not a JSON object");
  const auto prompt = field(line, "prompt_tokens", "input_length");
  const auto answer = field(line, "max_tokens", "output_length");
  const auto seconds = field(line, "arrival_s", "arrival_s");
  const auto milliseconds = field(line, "timestamp", "timestamp_ms");
  if (!prompt || !answer) return refused("prompt_tokens or max_tokens is missing");
  if (!seconds && !milliseconds) return refused("arrival_s or timestamp is missing");
  const double arrival = seconds ? *seconds : *milliseconds / 1000.0;
  constexpr auto most = static_cast<double>(length_distribution::tokens_max);
  if (!(*prompt >= 1.0 && *prompt <= most && *answer >= 1.0 && *answer <= most)) {
    return refused("tokens are 1 to " + std::to_string(length_distribution::tokens_max));
  }
  if (!(arrival >= 0.0 && arrival <= 1e9)) return refused("an arrival is 0 or later");
  return planned_request{.arrival_s = arrival,
                         .prompt_tokens = static_cast<std::int64_t>(*prompt),
                         .max_tokens = static_cast<std::int64_t>(*answer)};
}

}  // namespace

base::result<length_distribution> length_distribution::parse(std::string_view text) {
  length_distribution made;
  const std::size_t colon = text.find(':');
  const std::string_view name = colon == std::string_view::npos ? "" : text.substr(0, colon);
  const std::string_view rest = colon == std::string_view::npos ? text : text.substr(colon + 1);
  const auto most = static_cast<double>(tokens_max);
  bool fine = false;
  if (name.empty()) {
    const auto value = number(rest);
    made.first_ = value.value_or(0.0);
    fine = value && *value >= 1.0 && *value <= most && *value == std::floor(*value);
  } else if (name == "uniform") {
    const auto range = two_numbers(rest, '-');
    made.of_ = shape::uniform;
    if (range) std::tie(made.first_, made.second_) = *range;
    fine = range && made.first_ >= 1.0 && made.second_ >= made.first_ && made.second_ <= most;
  } else if (name == "lognormal") {
    const auto both = two_numbers(rest, ',');
    made.of_ = shape::lognormal;
    if (both) std::tie(made.first_, made.second_) = *both;
    fine = both && made.first_ >= 1.0 && made.first_ <= most && made.second_ >= 0.0 &&
           made.second_ <= 10.0;
  } else if (name == "exponential") {
    const auto mean = number(rest);
    made.of_ = shape::exponential;
    made.first_ = mean.value_or(0.0);
    fine = mean && *mean >= 1.0 && *mean <= most;
  }
  if (fine) return made;
  return base::fail(base::error_code::invalid_argument, "cli",
                    fmt::format("'{}' is no length; write 512, uniform:100-900, "
                                "lognormal:MEDIAN,SIGMA or exponential:MEAN",
                                text));
}

std::int64_t length_distribution::draw(std::mt19937_64& random) const {
  double value = first_;
  switch (of_) {
    case shape::fixed:
      break;
    case shape::uniform:
      value = std::uniform_real_distribution<double>(first_ - 0.5, second_ + 0.5)(random);
      break;
    case shape::lognormal:
      value = std::lognormal_distribution<double>(std::log(first_), second_)(random);
      break;
    case shape::exponential:
      value = std::exponential_distribution<double>(1.0 / first_)(random);
      break;
  }
  const double low = of_ == shape::uniform ? first_ : 1.0;
  const double high = of_ == shape::uniform ? second_ : static_cast<double>(tokens_max);
  return static_cast<std::int64_t>(std::clamp(std::round(value), low, high));
}

std::optional<std::int64_t> length_distribution::fixed() const {
  if (of_ != shape::fixed) return std::nullopt;
  return static_cast<std::int64_t>(first_);
}

std::vector<planned_request> plan_load(const load_options& options) {
  std::mt19937_64 random(options.seed);
  std::vector<planned_request> plan;
  double now_s = 0.0;
  const bool at_once = std::isinf(options.request_rate);
  std::gamma_distribution<double> gap(
      options.burstiness, at_once ? 1.0 : 1.0 / (options.request_rate * options.burstiness));
  for (std::int64_t i = 0; i < options.requests; ++i) {
    plan.push_back({.arrival_s = now_s,
                    .prompt_tokens = options.prompt_tokens.draw(random),
                    .max_tokens = options.max_tokens.draw(random)});
    if (!at_once) now_s += gap(random);
  }
  return plan;
}

base::result<std::vector<planned_request>> read_trace(std::string_view text,
                                                      std::size_t requests_max) {
  std::vector<planned_request> plan;
  std::size_t number = 0;
  while (!text.empty() && plan.size() < requests_max) {
    ++number;
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    TROUPE_TRY(read, read_line(line, number));
    plan.push_back(read);
  }
  if (plan.empty()) {
    return base::fail(base::error_code::invalid_argument, "cli", "--trace: no request is in it");
  }
  std::stable_sort(plan.begin(), plan.end(),
                   [](const auto& a, const auto& b) { return a.arrival_s < b.arrival_s; });
  const double begin = plan.front().arrival_s;
  for (planned_request& request : plan) request.arrival_s -= begin;
  return plan;
}

}  // namespace troupe::cli
