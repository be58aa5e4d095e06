// Typed, bounded access to the fields of one JSON object, with errors that name file, field, value
// and what is allowed. Internal to models/config*.cpp.
//
//   const config_fields fields(root, "config.json");
//   TROUPE_TRY(size, fields.integer({.name = "hidden_size", .absent = 4096, .max = 1 << 18}));
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace troupe::models {

// A JSON integer as int64, or nullopt: true and 4096.0 are none, here as in transformers.
[[nodiscard]] std::optional<std::int64_t> as_integer(const nlohmann::json& value);

struct integer_field {
  std::string_view name = {};
  std::optional<std::int64_t> absent =
      std::nullopt;  // value when the field is missing; nullopt: required
  std::optional<std::int64_t> null =
      std::nullopt;  // value when it is null; nullopt: null is refused
  std::int64_t min = 1;
  std::int64_t max = 0;
};

struct number_field {
  std::string_view name = {};
  std::optional<double> absent = std::nullopt;
  double min = 0.0;  // allowed itself
  double max = 0.0;
};

class config_fields {
 public:
  // `object` is borrowed and outlives this; `where` is the file, with the enclosing field if any.
  config_fields(const nlohmann::json& object, std::string where)
      : object_(object), where_(std::move(where)) {}

  [[nodiscard]] const std::string& where() const noexcept { return where_; }

  // nullptr when absent; a null field is a value of type null.
  [[nodiscard]] const nlohmann::json* find(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const { return find(name) != nullptr; }
  [[nodiscard]] bool has_value(std::string_view name) const;  // there and not null

  // Errors of all: invalid_argument for the wrong type, a value outside the bounds, or a missing
  // required field.
  [[nodiscard]] base::result<std::int64_t> integer(const integer_field& field) const;
  [[nodiscard]] base::result<double> number(const number_field& field) const;
  [[nodiscard]] base::result<std::optional<double>> optional_number(
      const number_field& field) const;
  [[nodiscard]] base::result<bool> boolean(std::string_view name, bool absent) const;
  // Empty when absent or null.
  [[nodiscard]] base::result<std::string> text(std::string_view name) const;
  [[nodiscard]] base::result<std::vector<std::string>> texts(std::string_view name,
                                                             std::size_t count_max) const;

  // The error for `name`: "<where>: field "<name>" is <value>: <allowed>".
  [[nodiscard]] tl::unexpected<base::error> wrong(
      std::string_view name, std::string_view allowed,
      base::error_code code = base::error_code::invalid_argument) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace troupe::models
