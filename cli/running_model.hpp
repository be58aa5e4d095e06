// A model loaded over its ranks with an engine on top: what generate and bench run.
#pragma once

#include <cstdint>
#include <memory>

#include "cli/model_flags.hpp"
#include "engine/engine.hpp"
#include "engine/thread_executor.hpp"

namespace troupe::cli {

// What the command will ask for, from which limits are derived that no flag sets.
struct workload {
  std::int64_t positions = 0;  // of the longest sequence
  std::int64_t sequences = 1;  // at once
};

struct running_model {
  std::unique_ptr<engine::thread_executor> ranks;
  std::unique_ptr<engine::engine> engine;
  std::int64_t max_model_len = 0;
  double load_s = 0.0;
  std::uint64_t peak_pss_bytes = 0;  // of this process, sampled at each tenth of the load and after
};

// Loads `opened` with progress on stderr. A workload longer than the model was trained for is a
// warning, not an error, unless --max-model-len says otherwise.
// Errors: those of thread_executor::start; invalid_argument (workload above --max-model-len).
[[nodiscard]] base::result<running_model> start_model(const model_flags& flags,
                                                      const opened_model& opened,
                                                      const workload& load);

// Units: bytes of physical memory of this process, its share of shared pages; 0 where unknown.
[[nodiscard]] std::uint64_t resident_pss_bytes();

}  // namespace troupe::cli
