#include "cli/serving_driver.hpp"

#include <nlohmann/json.hpp>
#include <utility>

namespace troupe::cli {

serving_driver::serving_driver(serving_driver_options options)
    : options_(std::move(options)), leader_(actors::leader::start(options_.leader, callbacks())) {}

serving_driver::~serving_driver() = default;

actors::leader_callbacks serving_driver::callbacks() {
  return {.proved = [this](base::epoch_id epoch) { process_->canary_done(epoch); },
          .failed = [this](base::epoch_id epoch,
                           const std::string& reason) { process_->epoch_failed(epoch, reason); },
          .released = [](base::epoch_id) {},
          .drained = [this] { process_->drained(); },
          .describe = [this](actors::gang_status& status) { describe(status); }};
}

void serving_driver::begin_epoch(base::epoch_id epoch, std::unique_ptr<engine::executor> ranks) {
  leader_->begin_epoch(epoch, std::move(ranks), numerics(process_->view()));
}

void serving_driver::end_epoch(base::epoch_id epoch, const std::string& reason) {
  leader_->end_epoch(epoch, reason);
}

void serving_driver::drain(std::chrono::milliseconds) {
  if (options_.on_drain) options_.on_drain();
  leader_->drain();
}

void serving_driver::view_changed(const actors::gang_view& view) {
  if (view.ready == announced_ready_ && (!view.ready || view.epoch == announced_)) return;
  announced_ready_ = view.ready;
  announced_ = view.epoch;
  nlohmann::ordered_json line = {{"event", view.ready ? "ready" : "not_ready"},
                                 {"epoch", view.epoch.number}};
  if (view.ready) {
    line["model"] = options_.model;
    line["ranks"] = view.ranks.size();
    line["data_plane"] = options_.data_plane;
    line["instruction_path"] = view.instruction_path;
  } else {
    line["reason"] = view.not_ready;
  }
  process_->announce(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string serving_driver::numerics(const actors::gang_view& view) const {
  kernels::numerics_profile profile = options_.profile;
  if (const auto path = kernels::parse_instruction_path(view.instruction_path)) {
    profile.path = *path;
  }
  return to_string(profile);
}

void serving_driver::describe(actors::gang_status& status) const {
  const actors::gang_view view = process_->view();
  const transport::data_plane_counters moved = process_->counters();
  status.epoch = view.epoch;
  status.ready = status.ready && view.ready;
  status.draining = status.draining || view.draining;
  status.not_ready = status.ready ? "" : view.not_ready;
  status.tensor_parallel_size = options_.shape.tp_size;
  status.pipeline_parallel_size = options_.shape.pp_size;
  status.numerics = numerics(view);
  if (options_.shares) status.model_digest = options_.shares->root();
  status.data_plane = options_.data_plane;
  status.ranks = view.ranks;
  status.repairs = view.repairs;
  status.stale_dropped += view.stale_dropped + moved.stale_messages;
  status.data_plane_bytes_sent = moved.bytes_sent;
  status.data_plane_bytes_received = moved.bytes_received;
}

}  // namespace troupe::cli
