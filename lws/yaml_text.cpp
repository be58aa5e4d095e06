#include "lws/yaml_text.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <sstream>
#include <string_view>

namespace troupe::lws {
namespace {

using json = nlohmann::ordered_json;

// Words that YAML 1.1 readers take for booleans or null.
constexpr std::array<std::string_view, 11> other_types = {
    "true", "false", "yes", "no", "on", "off", "y", "n", "~", "null", ""};

bool is_plain(const std::string& text) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (std::find(other_types.begin(), other_types.end(), lower) != other_types.end()) return false;
  // "--flag" is a text; "-" and "---" are signs of YAML's.
  const bool flag = text.size() > 2 && text.starts_with("--") && text[2] != '-';
  const auto first = static_cast<unsigned char>(text.front());
  if (std::isalpha(first) == 0 && first != '/' && !flag) return false;
  return text.back() != ':' && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 ||
                  std::string_view("_./-:@=").find(static_cast<char>(c)) != std::string_view::npos;
         });
}

std::string scalar(const json& value) {
  if (value.is_string() && is_plain(value.get_ref<const std::string&>())) {
    return value.get<std::string>();
  }
  return value.dump();  // JSON is YAML: a text in double quotes, what is empty, a list in a list
}

bool is_block_text(const json& value) {
  return value.is_string() && value.get_ref<const std::string&>().find('\n') != std::string::npos;
}

void write(std::ostream& out, const json& tree, std::size_t depth);

void write_lines(std::ostream& out, const std::string& text, const std::string& before) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) out << before << line << '\n';
}

void write_value(std::ostream& out, const json& value, std::size_t depth) {
  if (is_block_text(value)) {
    out << " |\n";
    write_lines(out, value.get_ref<const std::string&>(), std::string(2 * depth + 2, ' '));
  } else if (!value.is_structured() || value.empty()) {
    out << ' ' << scalar(value) << '\n';
  } else {
    out << '\n';
    // A sequence stands under its key, not deeper: the way kubectl prints.
    write(out, value, value.is_array() ? depth : depth + 1);
  }
}

void write_map(std::ostream& out, const json& tree, std::size_t depth, bool first_is_indented) {
  const std::string indent(2 * depth, ' ');
  bool indented = first_is_indented;
  for (const auto& [key, value] : tree.items()) {
    if (key.front() == '#') {
      write_lines(out, value.get_ref<const std::string&>(), indent + "# ");
      continue;
    }
    out << (indented ? "" : indent) << scalar(json(key)) << ':';
    indented = false;
    write_value(out, value, depth);
  }
}

void write_sequence(std::ostream& out, const json& tree, std::size_t depth) {
  const std::string indent(2 * depth, ' ');
  for (const json& entry : tree) {
    out << indent << "- ";
    if (!entry.is_object() || entry.empty()) {
      out << scalar(entry) << '\n';
      continue;
    }
    // The first line of an entry has the dash: a comment goes below it.
    json fields = entry;
    if (fields.begin().key().front() == '#') {
      out << "# " << fields.begin()->get<std::string>() << '\n';
      fields.erase(fields.begin());
      write_map(out, fields, depth + 1, false);
    } else {
      write_map(out, fields, depth + 1, true);
    }
  }
}

void write(std::ostream& out, const json& tree, std::size_t depth) {
  if (tree.is_array()) {
    write_sequence(out, tree, depth);
  } else {
    write_map(out, tree, depth, false);
  }
}

}  // namespace

std::string to_yaml(const json& tree) {
  std::ostringstream out;
  write(out, tree, 0);
  return out.str();
}

}  // namespace troupe::lws
