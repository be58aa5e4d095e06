#include "serving/request_json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace troupe::serving {
namespace {

std::string in_ascii(std::string_view text, std::size_t bytes_max) {
  std::string out;
  for (const char c : text.substr(0, bytes_max)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte >= 0x20 && byte < 0x7F ? std::string(1, c) : fmt::format("\\x{:02x}", byte);
  }
  if (text.size() > bytes_max) out += "...";
  return out;
}

// nlohmann writes "[json.exception.parse_error.101] parse error at line 1, column 2: reason".
std::string reason_of(const json::exception& exception) {
  std::string_view what = exception.what();
  if (const auto end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
  return in_ascii(what, 200);
}

// Builds the tree and stops at the first bound. An object keeps its client's order in a vector,
// where looking up each key while it grows would take quadratic time and growing would copy all
// below it: fields are gathered first, and moved into a vector of their number when the object
// ends.
class bounded_tree final : public nlohmann::json_sax<json> {
 public:
  explicit bounded_tree(const json_bounds& bounds) : bounds_(bounds) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(std::int64_t value) override { return scalar(value); }
  bool number_unsigned(std::uint64_t value) override { return scalar(value); }
  // The parser itself refuses 1e999; it knows no NaN.
  bool number_float(double value, const std::string&) override { return scalar(value); }
  bool string(std::string& value) override { return scalar(std::move(value)); }
  bool binary(json::binary_t&) override { return refuse_body("binary value"); }
  bool start_object(std::size_t) override { return start(true); }
  bool start_array(std::size_t) override { return start(false); }
  bool end_object() override {
    std::vector<field> fields = std::move(open_.back().fields);
    if (!all_differ(fields)) return false;
    json made = json::object();
    auto& object = made.get_ref<json::object_t&>();
    object.reserve(fields.size());
    for (field& one : fields) object.emplace_back(std::move(one.first), std::move(one.second));
    return end(std::move(made));
  }
  bool end_array() override { return end(json(std::move(open_.back().items))); }
  bool key(std::string& name) override {
    if (open_.back().fields.size() >= bounds_.fields_max) {
      return refuse_body(fmt::format("an object of more than {} fields", bounds_.fields_max));
    }
    open_.back().key = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& exception) override {
    return refuse_body("not valid JSON: " + reason_of(exception));
  }

  json root;
  std::string reason;

 private:
  using field = std::pair<std::string, json>;
  struct container {
    bool is_object = false;
    std::string key;  // of the field that comes next
    std::vector<field> fields;
    json::array_t items;
  };

  bool refuse_body(std::string why) {
    if (reason.empty()) reason = std::move(why);
    return false;
  }
  bool all_differ(const std::vector<field>& fields) {
    std::vector<std::string_view> names;
    names.reserve(fields.size());
    for (const field& one : fields) names.emplace_back(one.first);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    return twice == names.end() || refuse_body("key \"" + in_ascii(*twice, 80) + "\" twice");
  }
  void place(json value) {
    if (open_.empty()) {
      root = std::move(value);
    } else if (container& parent = open_.back(); parent.is_object) {
      parent.fields.emplace_back(std::move(parent.key), std::move(value));
    } else {
      parent.items.push_back(std::move(value));
    }
  }
  bool counted() {
    return ++values_ <= bounds_.values_max ||
           refuse_body(fmt::format("more than {} values", bounds_.values_max));
  }
  bool scalar(json value) {
    if (!counted()) return false;
    place(std::move(value));
    return true;
  }
  bool start(bool is_object) {
    if (open_.size() >= static_cast<std::size_t>(bounds_.depth_max)) {
      return refuse_body(fmt::format("nested deeper than {} levels", bounds_.depth_max));
    }
    if (!counted()) return false;
    open_.emplace_back().is_object = is_object;
    return true;
  }
  bool end(json made) {
    open_.pop_back();
    place(std::move(made));
    return true;
  }

  json_bounds bounds_;
  std::vector<container> open_;
  std::size_t values_ = 0;
};

tl::unexpected<api_error> wrong_type(const std::string& param, std::string_view wanted,
                                     const json& value) {
  return refuse(param, fmt::format("expected {}, got {}", wanted, shown(value)), "invalid_type");
}

}  // namespace

api_result<json> parse_body(std::string_view body, const json_bounds& bounds) {
  bounded_tree tree(bounds);
  if (!json::sax_parse(body.begin(), body.end(), &tree)) {
    return refuse("", "the request body is refused: " + tree.reason, "invalid_json");
  }
  if (!tree.root.is_object()) {
    return refuse("", "the request body is not a JSON object but " + shown(tree.root),
                  "invalid_json");
  }
  return std::move(tree.root);
}

std::string shown(const json& value) {
  if (value.is_string()) return '"' + in_ascii(value.get_ref<const std::string&>(), 40) + '"';
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_object()) return "an object";
  return value.dump();
}

api_result<std::int64_t> as_integer(const json& value, const std::string& param,
                                    integer_range range) {
  if (!value.is_number_integer()) return wrong_type(param, "an integer", value);
  const bool too_large = value.is_number_unsigned() &&
                         value.get<std::uint64_t>() >
                             static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const std::int64_t number = too_large ? 0 : value.get<std::int64_t>();
  if (too_large || number < range.min || number > range.max) {
    return refuse(param, range.max == std::numeric_limits<std::int64_t>::max()
                             ? fmt::format("expected an integer of at least {}, got {}", range.min,
                                           shown(value))
                             : fmt::format("expected an integer from {} to {}, got {}", range.min,
                                           range.max, shown(value)));
  }
  return number;
}

api_result<std::string> as_string(const json& value, const std::string& param) {
  if (!value.is_string()) return wrong_type(param, "a string", value);
  return value.get<std::string>();
}

const json* field_reader::find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

api_result<bool> field_reader::boolean(const char* name, bool fallback) const {
  const json* const value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return wrong_type(param(name), "true or false", *value);
  return value->get<bool>();
}

api_result<std::optional<std::int64_t>> field_reader::integer(const char* name,
                                                              integer_range range) const {
  const json* const value = find(name);
  if (value == nullptr) return std::optional<std::int64_t>();
  TROUPE_TRY(number, as_integer(*value, param(name), range));
  return std::optional<std::int64_t>(number);
}

api_result<std::optional<double>> field_reader::number(const char* name, number_range range) const {
  const json* const value = find(name);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number()) return wrong_type(param(name), "a number", *value);
  const double number = value->get<double>();
  if (!(number >= range.min && number <= range.max)) {
    return refuse(param(name), fmt::format("expected a number from {} to {}, got {}", range.min,
                                           range.max, shown(*value)));
  }
  return std::optional<double>(number);
}

api_result<field_reader> field_reader::object(const char* name) const {
  const json* const value = find(name);
  if (value == nullptr || !value->is_object()) {
    return refuse(param(name), "expected an object", "missing_parameter");
  }
  return field_reader(*value, param(name) + ".");
}

api_result<std::string> field_reader::required_string(const char* name) const {
  TROUPE_TRY(text, string(name));
  if (!text) return refuse(param(name), "is missing", "missing_parameter");
  return *std::move(text);
}

api_result<std::optional<std::string>> field_reader::string(const char* name) const {
  const json* const value = find(name);
  if (value == nullptr) return std::optional<std::string>();
  TROUPE_TRY(text, as_string(*value, param(name)));
  return std::optional<std::string>(std::move(text));
}

}  // namespace troupe::serving
