// Runs one request's n choices to their end: tokens, text, stop strings, timings.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "models/text/tokenizer.hpp"

namespace troupe::cli {

struct generation_request {
  engine::sampling_params params;  // of choice 0
  std::vector<std::int32_t> prompt_ids;
  std::uint32_t choices = 1;
  std::vector<std::string> stop;
  const text::tokenizer* tokenizer = nullptr;  // nullptr: no text
  // Called with text of choice 0 that is certain, as it comes.
  std::function<void(const std::string&)> on_text;
};

struct generated_choice {
  std::vector<engine::sampled_token> tokens;
  std::string text;
  engine::finish_reason finish = engine::finish_reason::length;
};

struct generation {
  std::vector<generated_choice> choices;
  double prefill_s = 0.0;  // to the first token
  double decode_s = 0.0;   // from there to the last
};

// Errors: those of engine::add and engine::step; internal (logits that are not numbers).
[[nodiscard]] base::result<generation> run_generation(engine::engine& on,
                                                      const generation_request& request);

}  // namespace troupe::cli
