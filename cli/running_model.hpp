// A model loaded over its ranks with an engine on top: what generate and bench run.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cli/engine_limits.hpp"
#include "cli/model_flags.hpp"
#include "engine/engine.hpp"

namespace troupe::cli {

struct running_model {
  std::unique_ptr<engine::executor> ranks;
  std::unique_ptr<engine::engine> engine;
  std::int64_t max_model_len = 0;
  double load_s = 0.0;
  std::uint64_t peak_pss_bytes = 0;  // of this process, sampled at each tenth of the load and after
};

// Loads `opened` over threads of this process, with progress on stderr.
// Errors: those of thread_executor::start and choose_limits.
[[nodiscard]] base::result<running_model> start_model(const model_flags& flags,
                                                      const opened_model& opened,
                                                      const workload& load);

// Units: bytes of physical memory of this process, its share of shared pages; 0 where unknown.
[[nodiscard]] std::uint64_t resident_pss_bytes();
// The same of the other processes that this one's parent started: the gang's other ranks.
[[nodiscard]] std::vector<std::uint64_t> sibling_pss_bytes();

}  // namespace troupe::cli
