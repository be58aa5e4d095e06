#include "models/config_fields.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "models/json_bounds.hpp"

namespace troupe::models {
namespace {

constexpr std::string_view origin = "models";

}  // namespace

std::optional<std::int64_t> as_integer(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return std::nullopt;
    }
    return static_cast<std::int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  return std::nullopt;
}

const nlohmann::json* config_fields::find(std::string_view name) const {
  const auto it = object_.find(name);
  return it == object_.end() ? nullptr : &*it;
}

bool config_fields::has_value(std::string_view name) const {
  const nlohmann::json* value = find(name);
  return value != nullptr && !value->is_null();
}

tl::unexpected<base::error> config_fields::wrong(std::string_view name, std::string_view allowed,
                                                 base::error_code code) const {
  const nlohmann::json* value = find(name);
  return base::fail(code, origin,
                    fmt::format("{}: field \"{}\" is {}: {}", where_, name,
                                value == nullptr ? "missing" : described(*value), allowed));
}

base::result<std::int64_t> config_fields::integer(const integer_field& field) const {
  const nlohmann::json* value = find(field.name);
  if (value == nullptr && field.absent) return *field.absent;
  if (value != nullptr && value->is_null() && field.null) return *field.null;
  const auto number = value == nullptr ? std::nullopt : as_integer(*value);
  if (!number || *number < field.min || *number > field.max) {
    return wrong(field.name, fmt::format("give an integer from {} to {}", field.min, field.max));
  }
  return *number;
}

base::result<double> config_fields::number(const number_field& field) const {
  const nlohmann::json* value = find(field.name);
  if (value == nullptr && field.absent) return *field.absent;
  const double number = value != nullptr && value->is_number() ? value->get<double>() : NAN;
  if (!(number >= field.min && number <= field.max)) {  // also refuses NaN
    return wrong(field.name, fmt::format("give a number from {} to {}", field.min, field.max));
  }
  return number;
}

base::result<std::optional<double>> config_fields::optional_number(
    const number_field& field) const {
  if (!has_value(field.name)) return std::nullopt;
  TROUPE_TRY(value, number(field));
  return std::optional(value);
}

base::result<bool> config_fields::boolean(std::string_view name, bool absent) const {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) return wrong(name, "give true or false");
  return value->get<bool>();
}

base::result<std::string> config_fields::text(std::string_view name) const {
  if (!has_value(name)) return std::string();
  const nlohmann::json& value = *find(name);
  if (!value.is_string()) return wrong(name, "give a string");
  return value.get<std::string>();
}

base::result<std::vector<std::string>> config_fields::texts(std::string_view name,
                                                            std::size_t count_max) const {
  std::vector<std::string> out;
  if (!has_value(name)) return out;
  const nlohmann::json& value = *find(name);
  const std::string allowed = fmt::format("give a list of at most {} strings", count_max);
  if (!value.is_array() || value.size() > count_max) return wrong(name, allowed);
  for (const nlohmann::json& item : value) {
    if (!item.is_string()) return wrong(name, allowed);
    out.push_back(item.get<std::string>());
  }
  return out;
}

}  // namespace troupe::models
