// What every rank of one layout would hold: the loading code itself, run without reading.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/model_flags.hpp"

namespace troupe::cli {

// Units: bytes.
struct rank_report {
  std::uint64_t weight_bytes = 0;   // packed, private to the rank
  std::uint64_t scratch_bytes = 0;  // reserved; touched as far as steps need it
  std::int64_t kv_bytes_per_token = 0;
};

struct layout_report {
  int tp_size = 1;
  int pp_size = 1;
  std::vector<rank_report> ranks;  // empty when refused
  std::string refused;             // why
};

// Errors: a checkpoint that does not fit its config (missing tensor, wrong shape or dtype).
[[nodiscard]] base::result<layout_report> report_layout(const opened_model& opened,
                                                        const model_flags& flags, int tp_size,
                                                        int pp_size);

}  // namespace troupe::cli
