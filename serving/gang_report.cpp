#include "serving/gang_report.hpp"

#include <fmt/format.h>

#include <iterator>

#include "serving/json_text.hpp"

namespace troupe::serving {
namespace {

void append_text(std::string& out, std::string_view name, std::string_view value) {
  fmt::format_to(std::back_inserter(out), R"(,"{}":)", name);
  append_json_string(out, value);
}

template <class Integer>
void append_number(std::string& out, std::string_view name, Integer value) {
  fmt::format_to(std::back_inserter(out), R"(,"{}":{})", name, value);
}

void append_rank(std::string& out, const actors::rank_status& rank) {
  fmt::format_to(std::back_inserter(out), R"({{"rank":{},"state":"{}")", rank.rank.value,
                 name_of(rank.state));
  append_text(out, "node", rank.node);
  append_text(out, "detail", rank.detail);
  append_number(out, "restarts", rank.restarts);
  out += '}';
}

}  // namespace

std::string_view name_of(actors::rank_state state) noexcept {
  switch (state) {
    case actors::rank_state::absent:
      return "absent";
    case actors::rank_state::loading:
      return "loading";
    case actors::rank_state::waiting:
      return "waiting";
    case actors::rank_state::connecting:
      return "connecting";
    case actors::rank_state::serving:
      return "serving";
  }
  return "unknown";
}

std::string gang_report(const actors::gang_status& gang, const served_model& model, bool draining) {
  std::string out = R"({"model":)";
  append_json_string(out, model.names.front());
  append_number(out, "max_model_len", model.max_model_len);
  // A string: 64 bits do not fit a number of JavaScript.
  fmt::format_to(std::back_inserter(out), R"(,"epoch":{{"incarnation":"{:016x}","number":{}}})",
                 gang.epoch.incarnation, gang.epoch.number);
  append_number(out, "ready", gang.ready && !draining);
  append_number(out, "draining", gang.draining || draining);
  append_text(out, "not_ready", gang.not_ready);
  append_number(out, "tensor_parallel_size", gang.tensor_parallel_size);
  append_number(out, "pipeline_parallel_size", gang.pipeline_parallel_size);
  append_text(out, "numerics", gang.numerics);
  append_text(out, "data_plane", gang.data_plane);
  out += R"(,"ranks":[)";
  for (const actors::rank_status& rank : gang.ranks) {
    if (&rank != gang.ranks.data()) out += ',';
    append_rank(out, rank);
  }
  out += ']';
  append_number(out, "repairs", gang.repairs);
  append_number(out, "stale_dropped", gang.stale_dropped);
  append_number(out, "steps", gang.steps);
  append_number(out, "prompt_tokens", gang.prompt_tokens);
  append_number(out, "prefill_tokens_computed", gang.prefill_tokens_computed);
  append_number(out, "generation_tokens", gang.generation_tokens);
  append_number(out, "preemptions", gang.preemptions);
  append_number(out, "cancelled", gang.cancelled);
  append_number(out, "carried", gang.carried);
  append_number(out, "data_plane_bytes_sent", gang.data_plane_bytes_sent);
  append_number(out, "data_plane_bytes_received", gang.data_plane_bytes_received);
  append_number(out, "running", gang.running);
  append_number(out, "waiting", gang.waiting);
  append_number(out, "kv_blocks_total", gang.kv_blocks_total);
  append_number(out, "kv_blocks_free", gang.kv_blocks_free);
  out += '}';
  return out;
}

}  // namespace troupe::serving
