// What a sequence must be before it may wait for a place: pure, so that it is checked on the thread
// that takes the request in, long before the engine's.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.hpp"
#include "engine/sequence_log.hpp"

namespace troupe::engine {

struct admission_limits {
  std::int64_t max_model_len = 0;
  std::int64_t vocab_size = 0;
  std::int64_t kv_blocks = 0;  // of a KV group, of 16 positions each
  std::vector<std::int32_t> eos_token_ids = {};
};

// Errors: invalid_argument (parameter, empty prompt, token id outside the vocabulary, prompt longer
// than max_model_len - 1, ended already), resource_exhausted (more positions than the cache holds).
[[nodiscard]] base::result<void> check_admission(const sequence_log& log,
                                                 const admission_limits& limits);

}  // namespace troupe::engine
