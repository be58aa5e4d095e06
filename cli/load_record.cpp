#include "cli/load_record.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/json_number.hpp"

namespace troupe::cli {
namespace {

using nlohmann::json;

// A field that holds a text which is not empty.
bool has_text(std::string_view event) {
  for (const std::string_view name :
       {R"("text":)", R"("content":)", R"("reasoning_content":)", R"("arguments":)"}) {
    for (std::size_t at = 0; (at = event.find(name, at)) != std::string_view::npos;) {
      at = event.find_first_not_of(' ', at + name.size());
      if (at == std::string_view::npos) break;
      if (event[at] == '"' && at + 1 < event.size() && event[at + 1] != '"') return true;
    }
  }
  return false;
}

struct samples {
  std::vector<double> ttft, itl, tpot, e2el, late;
};

double begin_of(const request_record& of, bool open_loop) {
  return open_loop ? of.due_s : of.sent_s;
}

samples sample(const std::vector<request_record>& records, bool open_loop) {
  samples all;
  for (const request_record& of : records) {
    all.late.push_back(1e3 * (of.sent_s - of.due_s));
    if (!of.failure.empty() || !of.first_s) continue;
    all.ttft.push_back(1e3 * (*of.first_s - begin_of(of, open_loop)));
    all.e2el.push_back(1e3 * (of.last_s - begin_of(of, open_loop)));
    for (const float gap : of.gaps_s) all.itl.push_back(1e3 * static_cast<double>(gap));
    if (of.completion_tokens > 1) {
      all.tpot.push_back(1e3 * (of.last_s - *of.first_s) /
                         static_cast<double>(of.completion_tokens - 1));
    }
  }
  return all;
}

nlohmann::ordered_json spread_json(std::vector<double> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  double sum = 0.0;
  for (const double value : values) sum += value;
  nlohmann::ordered_json out = {{"mean", nine_digits(sum / static_cast<double>(values.size()))}};
  constexpr std::array<std::pair<const char*, double>, 4> shares = {
      {{"median", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}}};
  for (const auto& [name, share] : shares) out[name] = nine_digits(percentile(values, share));
  out["max"] = nine_digits(values.back());
  return out;
}

bool is_good(const request_record& of, const goodput_limits& limits, bool open_loop) {
  if (!of.failure.empty() || !of.first_s) return false;
  const double begin = begin_of(of, open_loop);
  if (limits.ttft_ms && 1e3 * (*of.first_s - begin) > *limits.ttft_ms) return false;
  if (limits.e2el_ms && 1e3 * (of.last_s - begin) > *limits.e2el_ms) return false;
  if (!limits.itl_ms || of.gaps_s.empty()) return true;
  return 1e3 * (of.last_s - *of.first_s) / static_cast<double>(of.gaps_s.size()) <= *limits.itl_ms;
}

// Of open requests at once.
std::int64_t peak_open(const std::vector<request_record>& records) {
  std::vector<std::pair<double, int>> turns;
  for (const request_record& of : records) {
    turns.emplace_back(of.sent_s, 1);
    turns.emplace_back(of.end_s, -1);
  }
  std::sort(turns.begin(), turns.end());
  std::int64_t open = 0;
  std::int64_t most = 0;
  for (const auto& turn : turns) most = std::max(most, open += turn.second);
  return most;
}

// A step line of the share of values up to x, in a box of its own.
std::string curve(const std::string& title, std::vector<double> values, int left) {
  constexpr double width = 400.0;
  constexpr double height = 240.0;
  std::string out =
      fmt::format(R"x(<g transform="translate({},40)"><rect width="{}" height="{}" fill="none" )x"
                  R"(stroke="#888"/><text x="0" y="-12">{}</text>)",
                  left, width, height, title);
  if (values.empty()) return out + "</g>\n";
  std::sort(values.begin(), values.end());
  const double most = std::max(percentile(values, 0.999), 1e-9);
  out += R"(<polyline fill="none" stroke="#06c" stroke-width="1.5" points=")";
  constexpr int points = 200;
  for (int i = 0; i <= points; ++i) {
    const double share = static_cast<double>(i) / points;
    const double x = std::min(1.0, percentile(values, share) / most) * width;
    out += fmt::format("{:.1f},{:.1f} ", x, height * (1.0 - share));
  }
  out += R"("/>)";
  for (const double share : {0.5, 0.99}) {
    out += fmt::format(R"(<text x="{}" y="{}" text-anchor="end">p{:.0f} {:.3g} ms</text>)",
                       width - 8, height - 60 + 20 * (share > 0.9 ? 1 : 0), 100 * share,
                       percentile(values, share));
  }
  return out + fmt::format(R"(<text x="0" y="{}">0</text><text x="{}" y="{}" )"
                           R"(text-anchor="end">{:.3g} ms</text></g>)"
                           "\n",
                           height + 18, width, height + 18, most);
}

}  // namespace

int answer_events::push(std::string_view bytes) {
  unread_ += bytes;
  int texts = 0;
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = unread_.find("\n\n", begin)) != std::string::npos;
       begin = end + 2) {
    texts += take(std::string_view(unread_).substr(begin, end - begin)) ? 1 : 0;
  }
  unread_.erase(0, begin);
  if (unread_.size() > event_bytes_max) {
    error_ = "an event of more than " + std::to_string(event_bytes_max) + " bytes";
    unread_.clear();
  }
  return texts;
}

bool answer_events::take(std::string_view event) {
  constexpr std::string_view prefix = "data: ";
  if (!event.starts_with(prefix)) return false;
  event.remove_prefix(prefix.size());
  if (event == "[DONE]") {
    done_ = true;
    return false;
  }
  const bool has_usage = event.find(R"("usage":{)") != std::string_view::npos ||
                         event.find(R"("usage": {)") != std::string_view::npos;
  if (has_usage || event.starts_with(R"({"error")")) {
    const json data = json::parse(event, nullptr, false);
    if (data.is_object() && data.contains("error")) error_ = data["error"].dump();
    if (data.is_object() && data.contains("usage") && data["usage"].is_object()) {
      prompt_tokens_ = data["usage"].value("prompt_tokens", std::int64_t{0});
      completion_tokens_ = data["usage"].value("completion_tokens", std::int64_t{0});
    }
  }
  return has_text(event);
}

base::result<goodput_limits> parse_goodput(std::string_view text) {
  goodput_limits limits;
  const std::string all(text);
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = std::min(all.find_first_of(" ,", at), all.size());
    const std::string one = all.substr(at, end - at);
    at = end + 1;
    if (one.empty()) continue;
    const std::size_t colon = std::min(one.find(':'), one.size());
    const std::string name = one.substr(0, colon);
    const std::string digits = colon < one.size() ? one.substr(colon + 1) : "";
    char* rest = nullptr;
    const double value = std::strtod(digits.c_str(), &rest);
    std::optional<double>* const limit = name == "ttft"   ? &limits.ttft_ms
                                         : name == "itl"  ? &limits.itl_ms
                                         : name == "e2el" ? &limits.e2el_ms
                                                          : nullptr;
    if (limit == nullptr || digits.empty() || *rest != '\0' || !(value > 0.0)) {
      return base::fail(base::error_code::invalid_argument, "cli",
                        "--goodput: '" + one + "' is no limit; write ttft:MS, itl:MS or e2el:MS");
    }
    *limit = value;
  }
  return limits;
}

double percentile(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::min(std::max<std::size_t>(rank, 1), sorted.size()) - 1];
}

nlohmann::ordered_json load_report(const std::vector<request_record>& records,
                                   const goodput_limits& limits, bool open_loop) {
  std::int64_t whole = 0;
  std::int64_t good = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  double end_s = 0.0;
  std::map<std::string, std::int64_t> failures;
  for (const request_record& of : records) {
    end_s = std::max(end_s, of.end_s);
    if (!of.failure.empty()) {
      ++failures[of.failure.substr(0, 120)];
      continue;
    }
    ++whole;
    good += is_good(of, limits, open_loop) ? 1 : 0;
    prompt_tokens += of.prompt_tokens;
    completion_tokens += of.completion_tokens;
  }
  const auto per_s = [&](std::int64_t count) {
    return nine_digits(end_s > 0.0 ? static_cast<double>(count) / end_s : 0.0);
  };
  samples all = sample(records, open_loop);
  nlohmann::ordered_json out = {{"requests", records.size()},
                                {"completed", whole},
                                {"failed", static_cast<std::int64_t>(records.size()) - whole},
                                {"failures", failures},
                                {"duration_s", nine_digits(end_s)},
                                {"peak_open_requests", peak_open(records)},
                                {"prompt_tokens", prompt_tokens},
                                {"completion_tokens", completion_tokens},
                                {"requests_per_s", per_s(whole)},
                                {"prompt_tokens_per_s", per_s(prompt_tokens)},
                                {"completion_tokens_per_s", per_s(completion_tokens)}};
  if (limits.any()) out["goodput_requests_per_s"] = per_s(good);
  out["latencies_from"] = open_loop ? "due" : "sent";
  out["ttft_ms"] = spread_json(std::move(all.ttft));
  out["tpot_ms"] = spread_json(std::move(all.tpot));
  out["itl_ms"] = spread_json(std::move(all.itl));
  out["e2el_ms"] = spread_json(std::move(all.e2el));
  // Of the generator itself: what is large here is not the server's.
  out["sent_late_ms"] = spread_json(std::move(all.late));
  return out;
}

nlohmann::ordered_json json_of(const request_record& record) {
  nlohmann::ordered_json out = {{"due_s", nine_digits(record.due_s)},
                                {"sent_s", nine_digits(record.sent_s)},
                                {"end_s", nine_digits(record.end_s)},
                                {"prompt_tokens", record.prompt_tokens},
                                {"completion_tokens", record.completion_tokens},
                                {"failure", record.failure}};
  if (record.first_s) out["first_s"] = nine_digits(*record.first_s);
  out["itl_s"] = record.gaps_s;
  return out;
}

std::string plot_of(const std::vector<request_record>& records, bool open_loop) {
  samples all = sample(records, open_loop);
  return R"(<svg xmlns="http://www.w3.org/2000/svg" width="960" height="330" )"
         R"(font-family="sans-serif" font-size="13">)"
         "\n" +
         curve("share of requests by time to first token", std::move(all.ttft), 40) +
         curve("share of gaps by inter-token latency", std::move(all.itl), 500) + "</svg>\n";
}

}  // namespace troupe::cli
