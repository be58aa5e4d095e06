// The ways in which models write calls of tools (answer_parser.hpp lists them).
#pragma once

#include <memory>

#include "serving/answer_parser.hpp"

namespace troupe::serving {

// None where the form has no calls.
[[nodiscard]] std::unique_ptr<answer_parser> make_tool_parser(const answer_form& form);

}  // namespace troupe::serving
