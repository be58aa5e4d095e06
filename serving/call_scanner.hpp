// One call of a function as JSON, {"name": ..., "arguments": {...}}, character by character: its
// name as soon as it is known, its arguments as the text they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::serving {

class call_scanner {
 public:
  enum class state : std::uint8_t { open, done, failed };

  // Characters that were taken: all, or those up to the object's end or the first that cannot be.
  std::size_t push(std::string_view text);

  [[nodiscard]] state at() const noexcept { return state_; }
  // Known once its value has ended.
  [[nodiscard]] const std::optional<std::string>& name() const noexcept { return name_; }
  // What has come of the arguments since the last call. All of them where done; {} where none came.
  [[nodiscard]] std::string take_arguments();
  // The text so far, for one that turns out to be no call.
  [[nodiscard]] const std::string& raw() const noexcept { return raw_; }

 private:
  enum class place : std::uint8_t { begin, key_or_end, key, colon, value_begin, value, value_end };
  enum class value_kind : std::uint8_t { text, container, plain };

  // False: the character is not taken.
  bool take(char c);
  bool take_between(char c);
  bool take_value(char c);
  void begin_value(char c);
  void end_value();
  void fail() noexcept { state_ = state::failed; }

  state state_ = state::open;
  place place_ = place::begin;
  value_kind kind_ = value_kind::plain;
  int depth_ = 0;  // within a value
  bool in_string_ = false;
  bool escaped_ = false;
  bool arguments_came_ = false;
  std::string raw_;
  std::string key_;
  std::string value_;  // of the name, or of arguments that are a string
  std::optional<std::string> name_;
  std::string arguments_;
};

}  // namespace troupe::serving
