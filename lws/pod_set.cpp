#include "lws/pod_set.hpp"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace troupe::lws {
namespace {

using nlohmann::json;

// A text at a path of objects; empty where there is none.
std::string text_at(const json& of, std::initializer_list<const char*> path) {
  const json* at = &of;
  for (const char* const name : path) {
    if (!at->is_object()) return {};
    const auto found = at->find(name);
    if (found == at->end()) return {};
    at = &*found;
  }
  return at->is_string() ? at->get<std::string>() : std::string();
}

std::optional<found_pod> read_pod(const json& pod) {
  found_pod made{.name = text_at(pod, {"metadata", "name"}),
                 .address = text_at(pod, {"status", "podIP"}),
                 .terminating = !text_at(pod, {"metadata", "deletionTimestamp"}).empty()};
  const std::string phase = text_at(pod, {"status", "phase"});
  if (made.name.empty() || made.address.empty() || phase == "Succeeded" || phase == "Failed") {
    return std::nullopt;
  }
  return made;
}

}  // namespace

base::result<std::string> pod_set::take_list(std::string_view text) {
  const json list = json::parse(text, nullptr, false);
  const auto items = list.is_object() ? list.find("items") : list.end();
  if (!list.is_object() || items == list.end() || !items->is_array()) {
    return base::fail(base::error_code::data_loss, "lws", "the API server sent no list of pods");
  }
  pods_.clear();
  for (const json& pod : *items) {
    if (auto made = read_pod(pod)) pods_.insert_or_assign(made->name, *made);
  }
  version_ = text_at(list, {"metadata", "resourceVersion"});
  return version_;
}

pod_set::news pod_set::take_event(std::string_view text) {
  const json event = json::parse(text, nullptr, false);
  if (!event.is_object() || !event.contains("object")) return news::expired;
  const std::string type = text_at(event, {"type"});
  const json& object = event["object"];
  if (type == "ERROR") return news::expired;
  if (std::string version = text_at(object, {"metadata", "resourceVersion"}); !version.empty()) {
    version_ = std::move(version);
  }
  if (type == "BOOKMARK") return news::none;
  const std::string name = text_at(object, {"metadata", "name"});
  const auto known = pods_.find(name);
  const auto now = type == "DELETED" ? std::nullopt : read_pod(object);
  if (!now) {
    if (known == pods_.end()) return news::none;
    pods_.erase(known);
    return news::changed;
  }
  if (known != pods_.end() && known->second == *now) return news::none;
  pods_.insert_or_assign(name, *now);
  return news::changed;
}

std::vector<found_pod> pod_set::pods() const {
  std::vector<found_pod> all;
  all.reserve(pods_.size());
  for (const auto& [name, pod] : pods_) all.push_back(pod);
  return all;
}

}  // namespace troupe::lws
