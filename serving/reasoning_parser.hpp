// Cuts what a model thinks (<think>...</think>) from the beginning of its answer and hands the rest
// on.
#pragma once

#include <memory>

#include "serving/answer_parser.hpp"

namespace troupe::serving {

// `rest`: for what comes behind; null: it is content.
[[nodiscard]] std::unique_ptr<answer_parser> make_reasoning_parser(
    const answer_form& form, std::unique_ptr<answer_parser> rest);

}  // namespace troupe::serving
