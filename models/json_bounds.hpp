// JSON from files we do not trust: size and depth are bounded before anything is built, duplicate
// keys, trailing bytes and invalid UTF-8 are refused. nlohmann::json is used behind this header
// only in models/; no exception leaves it.
//
//   TROUPE_TRY(root, models::parse_json(text, {.bytes_max = 4 << 20, .depth_max = 64},
//   "config.json"));
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace troupe::models {

struct json_limits {
  std::size_t bytes_max = 0;
  int depth_max = 0;  // nesting of objects and arrays; the outermost counts as 1
};

// Parses one document into a tree. `file` names it in errors.
// Errors: invalid_argument (too large, too deep, duplicate key, not JSON: file and place).
// Cost: time and memory linear in the text; memory at most about 40 times `bytes_max`.
[[nodiscard]] base::result<nlohmann::json> parse_json(std::string_view text,
                                                      const json_limits& limits,
                                                      std::string_view file);

// A handler of parse events that counts depth and keeps the first reason to stop. Parsers of one
// known shape derive from it, so that a hostile file is refused at its first wrong event instead of
// being built in memory first. nlohmann's parser calls it from a loop, not recursively.
class bounded_json_events : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit bounded_json_events(int depth_max) : depth_max_(depth_max) {}

  // What a shape must answer; false stops the parse and needs refuse() before it.
  virtual bool on_scalar(nlohmann::json value) = 0;
  virtual bool on_start(bool object) = 0;
  virtual bool on_key(std::string& name) = 0;
  virtual bool on_end() = 0;

  // Runs over a whole document. Errors: as parse_json, plus what the shape refused.
  [[nodiscard]] base::result<void> run(std::string_view text, std::size_t bytes_max,
                                       std::string_view file);

  bool null() final { return on_scalar(nullptr); }
  bool boolean(bool value) final { return on_scalar(value); }
  bool number_integer(std::int64_t value) final { return on_scalar(value); }
  bool number_unsigned(std::uint64_t value) final { return on_scalar(value); }
  bool number_float(double value, const std::string& text) final;
  bool string(std::string& value) final { return on_scalar(std::move(value)); }
  bool binary(nlohmann::json::binary_t& value) final;
  bool start_object(std::size_t elements) final;
  bool start_array(std::size_t elements) final;
  bool key(std::string& name) final { return on_key(name); }
  bool end_object() final;
  bool end_array() final;
  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::json::exception& exception) final;

 protected:
  // Notes why the document is refused; returns false, for `return refuse(...)`.
  bool refuse(std::string reason);
  [[nodiscard]] int depth() const noexcept { return depth_; }

 private:
  bool start(bool object);

  int depth_max_;
  int depth_ = 0;
  std::string reason_;
};

// `text` in double quotes, safe for one line of a terminal: bytes outside printable ASCII become
// \xNN, and what is longer than `bytes_max` is cut with "...".
[[nodiscard]] std::string in_quotes(std::string_view text, std::size_t bytes_max = 80);

// A value as an error shows it: scalars as they are (shortened), containers by kind and size.
[[nodiscard]] std::string described(const nlohmann::json& value);

}  // namespace troupe::models
