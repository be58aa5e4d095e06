#include "models/json_bounds.hpp"

#include <fmt/format.h>

#include <cmath>
#include <utility>
#include <vector>

namespace troupe::models {
namespace {

constexpr std::string_view origin = "models";

std::string escaped(std::string_view text, std::size_t bytes_max) {
  std::string out;
  for (const char c : text.substr(0, bytes_max)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  if (text.size() > bytes_max) out += "...";
  return out;
}

// nlohmann writes "[json.exception.parse_error.101] parse error at line 1, column 2: reason".
std::string reason_of(const nlohmann::json::exception& exception) {
  std::string_view what = exception.what();
  if (const auto end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
  return escaped(what, 300);
}

// Builds the tree. Containers still open are on a stack of pointers into it: a child is filled
// before its parent grows again, so the pointers stay valid.
class tree_builder final : public bounded_json_events {
 public:
  using bounded_json_events::bounded_json_events;

  bool on_scalar(nlohmann::json value) override {
    place(std::move(value));
    return true;
  }
  bool on_start(bool object) override {
    open_.push_back(place(object ? nlohmann::json::object() : nlohmann::json::array()));
    return true;
  }
  bool on_key(std::string& name) override {
    if (open_.back()->contains(name)) return refuse(fmt::format("key {} twice", in_quotes(name)));
    key_ = std::move(name);
    return true;
  }
  bool on_end() override {
    open_.pop_back();
    return true;
  }

  nlohmann::json take() { return std::move(root_); }

 private:
  nlohmann::json* place(nlohmann::json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    nlohmann::json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    nlohmann::json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }

  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;
  std::string key_;
};

}  // namespace

bool bounded_json_events::refuse(std::string reason) {
  if (reason_.empty()) reason_ = std::move(reason);
  return false;
}

bool bounded_json_events::number_float(double value, const std::string& text) {
  // The lexer turns what does not fit an integer, and 1e999, into a double.
  if (!std::isfinite(value)) return refuse(fmt::format("number {} is too large", in_quotes(text)));
  return on_scalar(value);
}

bool bounded_json_events::binary(nlohmann::json::binary_t&) { return refuse("binary value"); }

bool bounded_json_events::start(bool object) {
  if (++depth_ > depth_max_) {
    return refuse(fmt::format("nested deeper than {} levels", depth_max_));
  }
  return on_start(object);
}

bool bounded_json_events::start_object(std::size_t) { return start(true); }
bool bounded_json_events::start_array(std::size_t) { return start(false); }

bool bounded_json_events::end_object() {
  --depth_;
  return on_end();
}

bool bounded_json_events::end_array() {
  --depth_;
  return on_end();
}

bool bounded_json_events::parse_error(std::size_t, const std::string&,
                                      const nlohmann::json::exception& exception) {
  return refuse("not valid JSON: " + reason_of(exception));
}

base::result<void> bounded_json_events::run(std::string_view text, std::size_t bytes_max,
                                            std::string_view file) {
  if (text.size() > bytes_max) {
    return base::fail(
        base::error_code::invalid_argument, origin,
        fmt::format("{}: {} bytes of JSON, at most {} are read", file, text.size(), bytes_max));
  }
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), this)) {
    return base::fail(base::error_code::invalid_argument, origin,
                      fmt::format("{}: {}", file, reason_));
  }
  return {};
}

base::result<nlohmann::json> parse_json(std::string_view text, const json_limits& limits,
                                        std::string_view file) {
  tree_builder builder(limits.depth_max);
  TROUPE_TRY_VOID(builder.run(text, limits.bytes_max, file));
  return builder.take();
}

std::string in_quotes(std::string_view text, std::size_t bytes_max) {
  return '"' + escaped(text, bytes_max) + '"';
}

std::string described(const nlohmann::json& value) {
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_object()) return fmt::format("an object of {} fields", value.size());
  return value.dump();
}

}  // namespace troupe::models
