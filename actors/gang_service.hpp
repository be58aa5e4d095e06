// The one door between what serves people (HTTP, a console, a test) and the actors: requests in,
// tokens out, the gang's state. No actor framework in here.
//
// Life cycle: implemented by the leader's shell; lives as long as rank 0's process. All calls may
// come from any thread and never block.
//
//   TROUPE_TRY(id, gang.submit({.prompt_ids = ids, .params = params}, sink));
//   gang.cancel(id);                       // the client has gone
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "schemas/sequence_log.hpp"
#include "schemas/step_plan.hpp"

namespace troupe::actors {

struct completion_request {
  std::vector<std::int32_t> prompt_ids;
  schemas::sampling_params params;  // of choice 0; choice i draws with the same seed and index i
  std::uint32_t choices = 1;
  schemas::cache_scope scope = {};
  std::optional<std::chrono::milliseconds> patience = {};  // default: the service's own deadline
};

struct choice_token {
  std::uint32_t choice = 0;
  schemas::sampled_token token;
  std::optional<schemas::finish_reason> finished = {};
  std::optional<std::int64_t> cached_tokens = {};  // of the prompt; with the first token
  // With choice 0's first token, where asked for: of the prompt's tokens from the second on.
  std::vector<schemas::sampled_token> prompt_logprobs = {};
};

// Receives one request's tokens. Called on the leader's thread, one call at a time; must not block
// and must not call back into the service.
class completion_sink {
 public:
  completion_sink() = default;
  completion_sink(const completion_sink&) = delete;
  completion_sink& operator=(const completion_sink&) = delete;
  virtual ~completion_sink() = default;

  // The tokens of one step, in order of choices.
  virtual void on_tokens(std::span<const choice_token> tokens) = 0;
  // Exactly once, last: fine when every choice has finished, else why not (unavailable with
  // retryable = true when the gang lost a rank, cancelled, deadline_exceeded, internal ...).
  virtual void on_end(base::result<void> outcome) = 0;
};

enum class rank_state : std::uint8_t { absent, loading, waiting, connecting, serving };
[[nodiscard]] const char* to_string(rank_state state) noexcept;

struct rank_status {
  base::rank_id rank;
  rank_state state = rank_state::absent;
  std::string node;
  std::string detail;          // what it does or why it was lost, one line
  std::uint64_t restarts = 0;  // in this life of the supervisor
};

// Counters only grow while the process lives.
struct gang_status {
  base::epoch_id epoch;
  bool ready = false;  // a real decode step finished in this epoch, within the last 10 s
  bool draining = false;
  std::string not_ready;  // why, one line
  int tensor_parallel_size = 1;
  int pipeline_parallel_size = 1;
  std::string numerics;      // the profile's name
  std::string model_digest;  // of the weights, hexadecimal; empty: not known yet
  std::string data_plane;
  std::vector<rank_status> ranks;
  std::uint64_t repairs = 0;        // epochs that were ended by a lost rank
  std::uint64_t stale_dropped = 0;  // messages of an older epoch
  std::uint64_t steps = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t prefill_tokens_computed = 0;
  std::uint64_t generation_tokens = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_tokens_queried = 0;  // looked up in the prefix cache
  std::uint64_t prefix_tokens_hit = 0;      // found there
  std::uint64_t cancelled = 0;              // requests whose client went
  std::uint64_t carried = 0;                // times that a request went on in another epoch
  std::uint64_t steps_after_cancel = 0;     // begun after it went, and still with its request
  std::uint64_t data_plane_bytes_sent = 0;
  std::uint64_t data_plane_bytes_received = 0;
  std::int64_t running = 0;  // sequences
  std::int64_t waiting = 0;
  std::int64_t kv_blocks_total = 0;
  std::int64_t kv_blocks_free = 0;
};

class gang_service {
 public:
  gang_service() = default;
  gang_service(const gang_service&) = delete;
  gang_service& operator=(const gang_service&) = delete;
  virtual ~gang_service() = default;

  // Admits all choices of a request or none. After success the sink gets its on_end.
  // Errors: invalid_argument (names the parameter), resource_exhausted (queue full: retryable),
  // unavailable (not ready, draining: retryable).
  [[nodiscard]] virtual base::result<base::request_id> submit(
      completion_request request, std::shared_ptr<completion_sink> sink) = 0;

  // Ends a request within one step; its blocks are free then. Unknown ids are ignored.
  virtual void cancel(base::request_id id) = 0;

  // A stop string was found: this choice has what it needs. The others go on.
  virtual void finish_choice(base::request_id id, std::uint32_t choice) = 0;

  [[nodiscard]] virtual gang_status status() const = 0;
};

}  // namespace troupe::actors
