#include "router/stream_opening.hpp"

#include <nlohmann/json.hpp>

namespace troupe::router {
namespace {

using nlohmann::json;

// Codes of ours, and statuses as vLLM writes them.
bool retry_mends(const json& error) {
  const json code = error.value("code", json());
  if (code.is_number_integer()) return code == 503;
  return code == "unavailable" || code == "aborted";
}

bool is_empty(const json& value) {
  return value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         ((value.is_array() || value.is_object()) && value.empty());
}

// Whether a choice of a chunk holds anything that a client would miss or see twice.
bool tells_something(const json& choice) {
  if (!choice.is_object()) return true;
  if (!is_empty(choice.value("finish_reason", json()))) return true;
  if (!is_empty(choice.value("text", json()))) return true;
  if (!is_empty(choice.value("token_ids", json()))) return true;
  const json delta = choice.value("delta", json());
  if (!delta.is_object()) return !is_empty(delta);
  for (const auto& [name, value] : delta.items()) {
    if (name != "role" && !is_empty(value)) return true;
  }
  return false;
}

}  // namespace

stream_opening::verdict stream_opening::feed(std::string_view bytes) {
  held_ += bytes;
  for (;;) {
    const std::size_t end = held_.find("\n\n", judged_);
    if (end == std::string::npos) break;
    const verdict told = judge(std::string_view(held_).substr(judged_, end - judged_));
    judged_ = end + 2;
    if (told != verdict::hold) return told;
  }
  return held_.size() > held_bytes_max ? verdict::pass : verdict::hold;
}

stream_opening::verdict stream_opening::judge(std::string_view event) {
  constexpr std::string_view field = "data:";
  if (event.starts_with(':')) return verdict::hold;  // a comment: keep-alive
  if (!event.starts_with(field)) return verdict::pass;
  const std::string_view data = event.substr(field.size());
  const json chunk = json::parse(data.begin(), data.end(), nullptr, false);
  if (!chunk.is_object()) return verdict::pass;  // [DONE], or nothing of ours
  if (const auto error = chunk.find("error"); error != chunk.end()) {
    if (!error->is_object() || !retry_mends(*error)) return verdict::pass;
    error_ = data;
    return verdict::retry;
  }
  const auto choices = chunk.find("choices");
  if (choices == chunk.end() || !choices->is_array()) return verdict::pass;
  for (const json& choice : *choices) {
    if (tells_something(choice)) return verdict::pass;
  }
  return verdict::hold;
}

}  // namespace troupe::router
