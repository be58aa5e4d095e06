// One mapping of a YAML document, read field by field: errors name the field's path, and what
// nobody asked for is known at the end. Start-up only: what is wrong is thrown and caught by the
// reader.
#pragma once

#include <yaml-cpp/yaml.h>

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace troupe::lws {

// "path: what".
struct field_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class yaml_fields {
 public:
  // A node that is not there is an empty mapping. Throws field_error where it is something else.
  yaml_fields(const YAML::Node& node, std::string path);

  [[nodiscard]] bool has(const std::string& key) const;
  [[nodiscard]] std::string text(const std::string& key, const std::string& otherwise = {});
  // Throws field_error where it is not in the range.
  [[nodiscard]] int number(const std::string& key, int otherwise, int low, int high);
  [[nodiscard]] bool flag(const std::string& key, bool otherwise);
  [[nodiscard]] std::vector<std::string> texts(const std::string& key);
  [[nodiscard]] yaml_fields map(const std::string& key);
  [[nodiscard]] std::vector<yaml_fields> list(const std::string& key);
  // All of it, as name and text.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> entries(const std::string& key);

  // It may be there, and means nothing here.
  void skip(const std::string& key) { taken_.insert(key); }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::string path_of(const std::string& key) const;
  // Throws field_error for the first key that nobody asked for.
  void refuse_rest() const;
  // The paths of the keys that nobody asked for.
  [[nodiscard]] std::vector<std::string> rest() const;
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const;

 private:
  [[nodiscard]] YAML::Node take(const std::string& key);

  YAML::Node node_;
  std::string path_;
  std::set<std::string> taken_;
};

}  // namespace troupe::lws
