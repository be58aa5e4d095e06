#include "serving/request_json.hpp"

#include <fmt/format.h>

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

// Builds the tree and stops at the first bound. Containers still open are on a stack of pointers
// into it: a child is filled before its parent grows again, so the pointers stay valid.
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
  bool start_object(std::size_t) override { return start(json::object()); }
  bool start_array(std::size_t) override { return start(json::array()); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool key(std::string& name) override {
    if (open_.back()->contains(name)) {
      return refuse_body("key \"" + in_ascii(name, 80) + "\" twice");
    }
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& exception) override {
    return refuse_body("not valid JSON: " + reason_of(exception));
  }

  json root;
  std::string reason;

 private:
  bool refuse_body(std::string why) {
    if (reason.empty()) reason = std::move(why);
    return false;
  }
  json* place(json value) {
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }
  json* counted(json value) {
    if (++values_ > bounds_.values_max) {
      refuse_body(fmt::format("more than {} values", bounds_.values_max));
      return nullptr;
    }
    return place(std::move(value));
  }
  bool scalar(json value) { return counted(std::move(value)) != nullptr; }
  bool start(json container) {
    if (open_.size() >= static_cast<std::size_t>(bounds_.depth_max)) {
      return refuse_body(fmt::format("nested deeper than {} levels", bounds_.depth_max));
    }
    json* const made = counted(std::move(container));
    if (made == nullptr) return false;
    open_.push_back(made);
    return true;
  }
  bool end() {
    open_.pop_back();
    return true;
  }

  json_bounds bounds_;
  std::vector<json*> open_;
  std::string key_;
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

api_result<std::optional<std::string>> field_reader::string(const char* name) const {
  const json* const value = find(name);
  if (value == nullptr) return std::optional<std::string>();
  TROUPE_TRY(text, as_string(*value, param(name)));
  return std::optional<std::string>(std::move(text));
}

}  // namespace troupe::serving
