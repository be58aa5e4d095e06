// Floats in JSON with nine significant digits: equal bits print equally, different ones
// differently.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace troupe::cli {

// The number that prints as at most nine significant digits.
[[nodiscard]] inline double nine_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return std::strtod(text, nullptr);
}

}  // namespace troupe::cli
