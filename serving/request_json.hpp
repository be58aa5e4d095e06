// JSON from clients: bounded while it is read, and fields taken out of it with errors that name
// them. nlohmann::json is used behind this folder's headers only; no exception leaves it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "serving/api_error.hpp"

namespace troupe::serving {

// Objects keep the order of their fields, which is the order in which an answer follows a schema.
// A field is found by going through them all.
using json = nlohmann::ordered_json;

struct json_bounds {
  int depth_max = 32;  // nesting of objects and arrays; the outermost counts as 1
  std::size_t values_max = std::size_t{1} << 20;
  // Of one object. Some 100 names are looked for in a body, each by going through all its fields:
  // 4.5 ms measured (2.8 ns a field). A schema of 128 KiB does not hold more properties
  // ("a123":{},).
  std::size_t fields_max = std::size_t{1} << 14;
};

// The body of a request, an object. Errors: 400 (not JSON, not UTF-8, too deep, too many values
// or fields, a key twice, a number beyond double, not an object).
[[nodiscard]] api_result<json> parse_body(std::string_view body, const json_bounds& bounds);

// A value as an error shows it: scalars shortened and in printable ASCII, containers by kind.
[[nodiscard]] std::string shown(const json& value);

template <class T>
struct value_range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
};
using integer_range = value_range<std::int64_t>;
using number_range = value_range<double>;

// Integers are taken as signed 64 bit and checked before anybody narrows them; 16.0 is none.
[[nodiscard]] api_result<std::int64_t> as_integer(const json& value, const std::string& param,
                                                  integer_range range);
[[nodiscard]] api_result<std::string> as_string(const json& value, const std::string& param);

// Fields of one object; null counts as absent, as in OpenAI's API. `prefix` goes before a field's
// name in errors ("messages[3].").
class field_reader {
 public:
  explicit field_reader(const json& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  [[nodiscard]] const json* find(const char* name) const;
  [[nodiscard]] std::string param(std::string_view name) const {
    return prefix_ + std::string(name);
  }

  [[nodiscard]] api_result<bool> boolean(const char* name, bool fallback) const;
  [[nodiscard]] api_result<std::optional<std::int64_t>> integer(const char* name,
                                                                integer_range range) const;
  [[nodiscard]] api_result<std::optional<double>> number(const char* name,
                                                         number_range range) const;
  [[nodiscard]] api_result<std::optional<std::string>> string(const char* name) const;
  // The fields of an object that has to be there. Lifetime: the object's.
  [[nodiscard]] api_result<field_reader> object(const char* name) const;
  [[nodiscard]] api_result<std::string> required_string(const char* name) const;

 private:
  const json& object_;
  std::string prefix_;
};

}  // namespace troupe::serving
