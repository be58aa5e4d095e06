// The engine's sizes that no flag sets, from what the command will ask for.
#pragma once

#include <cstdint>

#include "base/error.hpp"
#include "cli/model_flags.hpp"
#include "engine/engine.hpp"

namespace troupe::cli {

struct workload {
  std::int64_t positions = 0;  // of the longest sequence; 0: whatever the model takes (serve)
  std::int64_t sequences = 1;  // at once
};

struct engine_limits {
  std::int64_t max_model_len = 0;
  std::int64_t kv_blocks = 0;  // of a KV group, on every rank
};

// A workload longer than the model was trained for is a warning, not an error, unless
// --max-model-len says otherwise. Errors: invalid_argument (workload above --max-model-len),
// resource_exhausted (the cache cannot hold one sequence of --max-model-len).
[[nodiscard]] base::result<engine_limits> choose_limits(const model_flags& flags,
                                                        const opened_model& opened,
                                                        const workload& load);

[[nodiscard]] engine::engine_options engine_options_of(const model_flags& flags,
                                                       const opened_model& opened,
                                                       const engine_limits& limits);

// Units: bytes of the model's weights in the dtype they are packed in, over all ranks.
[[nodiscard]] std::uint64_t packed_bytes(const opened_model& opened);

}  // namespace troupe::cli
