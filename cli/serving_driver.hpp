// Joins the leader to the gang in rank 0's process: epochs in, proofs and failures out.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "actors/leader/leader.hpp"
#include "actors/rank/gang_process.hpp"

namespace troupe::cli {

struct serving_driver_options {
  actors::leader_parts leader;
  transport::world_shape shape;
  std::string data_plane;
  kernels::numerics_profile profile;
  std::string model;  // its name, for the announcements
  std::shared_ptr<const actors::share_book> shares = {};
  // SIGTERM has come: new requests are to be refused. Any thread.
  std::function<void()> on_drain;
};

class serving_driver final : public actors::epoch_driver {
 public:
  explicit serving_driver(serving_driver_options options);
  ~serving_driver() override;

  [[nodiscard]] actors::gang_service& service() noexcept { return *leader_; }
  // Before the process starts.
  void when_draining(std::function<void()> call) { options_.on_drain = std::move(call); }

  void attach(actors::gang_process& process) override { process_ = &process; }
  void begin_epoch(base::epoch_id epoch, std::unique_ptr<engine::executor> ranks) override;
  void end_epoch(base::epoch_id epoch, const std::string& reason) override;
  void drain(std::chrono::milliseconds patience) override;
  void view_changed(const actors::gang_view& view) override;

 private:
  [[nodiscard]] actors::leader_callbacks callbacks();
  void describe(actors::gang_status& status) const;
  [[nodiscard]] std::string numerics(const actors::gang_view& view) const;

  serving_driver_options options_;
  actors::gang_process* process_ = nullptr;
  bool announced_ready_ = false;  // the gang's thread only
  base::epoch_id announced_;
  std::unique_ptr<actors::leader> leader_;
};

}  // namespace troupe::cli
