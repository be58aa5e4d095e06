// What the gang's leader and its workers tell each other over the control plane. Never bulk: the
// largest message is the table of data-plane addresses.
//
// A worker dials, says join, is welcomed or refused, loads, and then follows the leader through
// epochs: prepare -> prepared (with its address) -> connect -> connected; either side ends an
// epoch.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"

namespace troupe::schemas {

// All that must be equal on every rank, besides the model itself. Compared field by field, so that
// a refusal names what differs.
struct gang_layout {
  std::int32_t tensor_parallel_size = 1;
  std::int32_t pipeline_parallel_size = 1;
  std::int64_t max_model_len = 0;
  std::int64_t max_num_seqs = 0;
  std::int64_t max_num_batched_tokens = 0;
  std::int64_t kv_blocks = 0;
  std::int64_t block_size = 0;
  std::string weights_dtype;
  std::string kv_cache_dtype;
  std::string data_plane;  // "shared_memory", "tls", "ucx"
  friend bool operator==(const gang_layout&, const gang_layout&) = default;
};

struct join_request {
  std::uint32_t protocol = 0;
  std::string build_id;  // of the binary
  base::rank_id rank;
  std::string node;  // host name, for people
  gang_layout layout;
  // Everything but the weights' values: config.json, tensor names, types and shapes, tokenizer.
  std::array<std::uint8_t, 32> model_description_digest{};
  std::vector<std::string> instruction_paths;  // that this machine has, fastest first
  std::int32_t kernel_version = 0;
};

struct welcome {
  std::uint64_t incarnation = 0;
  std::string instruction_path;  // common to the gang; a rank packed for another loads again
};

struct refusal {
  std::string reason;  // one line: which rank differs in what
};

struct loading_progress {
  std::uint64_t bytes = 0;
  std::uint64_t total_bytes = 0;
};

// The weights are packed. The digest is that of the rank's share of the hash tree.
struct loaded {
  std::array<std::uint8_t, 32> share_digest{};
  std::string instruction_path;
};

struct prepare {
  base::epoch_id epoch;
};

struct prepared {
  base::epoch_id epoch;
  std::vector<std::uint8_t> address;  // of the rank's data plane
};

struct connect {
  base::epoch_id epoch;
  std::vector<std::vector<std::uint8_t>> addresses;  // by rank
};

struct connected {
  base::epoch_id epoch;
};

// Leader to worker: leave this epoch. Worker to leader: this rank has left it, for that reason.
struct epoch_ended {
  base::epoch_id epoch;
  std::string reason;
};

struct control_message {
  // Who sent it, counted per sender: a repeated or overtaken message is found.
  base::rank_id sender;
  std::uint64_t sequence = 0;
  std::variant<join_request, welcome, refusal, loading_progress, loaded, prepare, prepared, connect,
               connected, epoch_ended>
      body;
};

}  // namespace troupe::schemas
