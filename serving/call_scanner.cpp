#include "serving/call_scanner.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "serving/request_json.hpp"

namespace troupe::serving {
namespace {

// The keys that a call may have; the first one that is none of them shows that it is no call.
constexpr std::array<std::string_view, 5> keys = {"name", "arguments", "parameters", "type", "id"};

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

bool holds_arguments(const std::string& key) { return key == "arguments" || key == "parameters"; }

// The text of a JSON string.
std::optional<std::string> unquoted(const std::string& value) {
  const json parsed = json::parse(value, nullptr, false);
  if (!parsed.is_string()) return std::nullopt;
  return parsed.get<std::string>();
}

}  // namespace

std::size_t call_scanner::push(std::string_view text) {
  std::size_t taken = 0;
  while (taken < text.size() && state_ == state::open && take(text[taken])) ++taken;
  return taken;
}

std::string call_scanner::take_arguments() {
  if (state_ == state::done && !arguments_came_) {
    arguments_came_ = true;
    return "{}";
  }
  return std::exchange(arguments_, {});
}

bool call_scanner::take(char c) {
  const bool taken = place_ == place::value ? take_value(c) : take_between(c);
  if (taken) raw_ += c;
  return taken;
}

bool call_scanner::take_between(char c) {
  if (place_ == place::key) {
    if (escaped_ || c != '"') {
      escaped_ = !escaped_ && c == '\\';
      key_ += c;
      return true;
    }
    place_ = place::colon;
    if (std::find(keys.begin(), keys.end(), key_) == keys.end()) fail();
    return state_ == state::open;
  }
  if (is_space(c)) return true;
  switch (place_) {
    case place::begin:
      if (c != '{') break;
      place_ = place::key_or_end;
      return true;
    case place::value_end:
      if (c == ',') {
        place_ = place::key_or_end;
        return true;
      }
      [[fallthrough]];
    case place::key_or_end:
      if (c == '}') {
        state_ = name_ ? state::done : state::failed;
        return name_.has_value();
      }
      if (c != '"' || place_ == place::value_end) break;
      place_ = place::key;
      key_.clear();
      return true;
    case place::colon:
      if (c != ':') break;
      place_ = place::value_begin;
      return true;
    case place::value_begin:
      begin_value(c);
      return true;
    case place::key:
    case place::value:
      break;
  }
  fail();
  return false;
}

void call_scanner::begin_value(char c) {
  place_ = place::value;
  depth_ = 0;
  in_string_ = c == '"';
  escaped_ = false;
  kind_ = in_string_             ? value_kind::text
          : c == '{' || c == '[' ? value_kind::container
                                 : value_kind::plain;
  if (kind_ == value_kind::container) depth_ = 1;
  value_ = c;
  if (holds_arguments(key_) && kind_ != value_kind::text) {
    arguments_came_ = true;
    arguments_ += c;
  }
}

bool call_scanner::take_value(char c) {
  const bool plain_end =
      kind_ == value_kind::plain && (c == ',' || c == '}' || c == ']' || is_space(c));
  if (plain_end) {
    end_value();
    return state_ == state::open && take_between(c);
  }
  if (holds_arguments(key_) && kind_ != value_kind::text) {
    arguments_ += c;
  } else {
    value_ += c;
  }
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
      if (kind_ == value_kind::text) end_value();
    }
    return true;
  }
  if (c == '"') in_string_ = true;
  if (c == '{' || c == '[') ++depth_;
  if ((c == '}' || c == ']') && --depth_ == 0) end_value();
  return true;
}

void call_scanner::end_value() {
  place_ = place::value_end;
  if (key_ == "name") {
    name_ = unquoted(value_);
    if (!name_ || name_->empty()) fail();
  } else if (holds_arguments(key_) && kind_ == value_kind::text) {
    // Some models write the arguments as a string that holds them.
    arguments_came_ = true;
    arguments_ += unquoted(value_).value_or(value_);
  }
  value_.clear();
}

}  // namespace troupe::serving
