// troupe bench MODEL --quality: what rounding weights costs, beside the same model unrounded.
#pragma once

#include <cstdint>
#include <string>

#include "cli/exit_code.hpp"
#include "cli/model_flags.hpp"

namespace troupe::cli {

struct quality_flags {
  std::string text;  // file whose tokens are scored; empty: random token ids
  std::int64_t sequence_tokens = 512;
  int sequences = 5;
  std::string output = "text";
};

// Scores the same tokens with the weights that --dtype says and with bfloat16 ones (those with
// float32 ones), over threads of this process, one model after the other.
exit_code run_quality(const model_flags& model, const quality_flags& flags);

}  // namespace troupe::cli
