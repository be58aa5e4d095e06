#include "models/text/stop_matcher.hpp"

#include <algorithm>
#include <utility>

namespace troupe::text {
namespace {

// The longest end of `text` that begins `stop` without completing it.
std::size_t open_match(std::string_view text, std::string_view stop) {
  for (std::size_t size = std::min(text.size(), stop.size() - 1); size > 0; --size) {
    if (text.substr(text.size() - size) == stop.substr(0, size)) return size;
  }
  return 0;
}

}  // namespace

stop_matcher::stop_matcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string stop_matcher::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  // The stop string that is complete first counts, of several at once the longest: so that the
  // result does not depend on how the text was cut into pieces.
  std::size_t first = std::string::npos;
  std::size_t first_end = std::string::npos;
  for (const std::string& stop : stops_) {
    const std::size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const std::size_t end = begin + stop.size();
    if (end < first_end || (end == first_end && begin < first)) {
      first = begin;
      first_end = end;
    }
  }
  if (first != std::string::npos) {
    stopped_ = true;
    std::string out = held_.substr(0, first);
    held_.clear();
    return out;
  }
  std::size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, open_match(held_, stop));
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string stop_matcher::finish() { return stopped_ ? std::string() : std::exchange(held_, {}); }

}  // namespace troupe::text
