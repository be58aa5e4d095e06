#include "lws/yaml_fields.hpp"

#include <spdlog/fmt/fmt.h>

#include <charconv>

namespace troupe::lws {

yaml_fields::yaml_fields(const YAML::Node& node, std::string path)
    : node_(node), path_(std::move(path)) {
  if (node_ && !node_.IsNull() && !node_.IsMap()) {
    throw field_error(fmt::format("{}: wanted fields, each with a name", path_));
  }
}

std::string yaml_fields::path_of(const std::string& key) const {
  return path_.empty() ? key : path_ + "." + key;
}

void yaml_fields::refuse(const std::string& key, const std::string& what) const {
  throw field_error(fmt::format("{}: {}", path_of(key), what));
}

bool yaml_fields::has(const std::string& key) const {
  return node_.IsMap() && node_[key] && !node_[key].IsNull();
}

YAML::Node yaml_fields::take(const std::string& key) {
  taken_.insert(key);
  return has(key) ? YAML::Node(node_[key]) : YAML::Node();
}

std::string yaml_fields::text(const std::string& key, const std::string& otherwise) {
  const YAML::Node found = take(key);
  if (found.IsNull()) return otherwise;
  if (!found.IsScalar()) refuse(key, "wanted a text");
  return found.Scalar();
}

int yaml_fields::number(const std::string& key, int otherwise, int low, int high) {
  const YAML::Node found = take(key);
  if (found.IsNull()) return otherwise;
  const std::string text = found.IsScalar() ? found.Scalar() : std::string();
  int value = 0;
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || stop != text.data() + text.size() || value < low || value > high) {
    refuse(key, fmt::format("\"{:.40}\"; wanted a number from {} to {}", text, low, high));
  }
  return value;
}

bool yaml_fields::flag(const std::string& key, bool otherwise) {
  const std::string value = text(key, otherwise ? "true" : "false");
  if (value != "true" && value != "false") refuse(key, "wanted true or false");
  return value == "true";
}

std::vector<std::string> yaml_fields::texts(const std::string& key) {
  const YAML::Node found = take(key);
  if (found.IsNull()) return {};
  if (!found.IsSequence()) refuse(key, "wanted a list of texts");
  std::vector<std::string> all;
  for (const YAML::Node& one : found) {
    if (!one.IsScalar()) refuse(key, "wanted a list of texts");
    all.push_back(one.Scalar());
  }
  return all;
}

yaml_fields yaml_fields::map(const std::string& key) { return {take(key), path_of(key)}; }

std::vector<yaml_fields> yaml_fields::list(const std::string& key) {
  const YAML::Node found = take(key);
  if (found.IsNull()) return {};
  if (!found.IsSequence()) refuse(key, "wanted a list");
  std::vector<yaml_fields> all;
  for (std::size_t i = 0; i < found.size(); ++i) {
    all.emplace_back(found[i], fmt::format("{}[{}]", path_of(key), i));
  }
  return all;
}

std::vector<std::pair<std::string, std::string>> yaml_fields::entries(const std::string& key) {
  const YAML::Node found = take(key);
  if (found.IsNull()) return {};
  if (!found.IsMap()) refuse(key, "wanted names with texts");
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& entry : found) {
    if (!entry.second.IsScalar()) refuse(key, "wanted names with texts");
    all.emplace_back(entry.first.Scalar(), entry.second.Scalar());
  }
  return all;
}

std::vector<std::string> yaml_fields::rest() const {
  std::vector<std::string> all;
  if (!node_.IsMap()) return all;
  for (const auto& entry : node_) {
    const std::string key = entry.first.Scalar();
    if (!taken_.contains(key)) all.push_back(path_of(key));
  }
  return all;
}

void yaml_fields::refuse_rest() const {
  const std::vector<std::string> unknown = rest();
  if (!unknown.empty()) throw field_error(unknown.front() + ": there is no such field");
}

}  // namespace troupe::lws
