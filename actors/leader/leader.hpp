// The leader: owns the open requests and the engine of each epoch, on one thread of its own.
//
// Life cycle: start() once in rank 0's process; begin_epoch() with the executor of a connected
// gang, end_epoch() when it is lost, and so on; drain() at the end. Calls may come from any thread;
// the callbacks come on the leader's thread, must not block and may call back.
//
//   auto leader = actors::leader::start({.engine = options}, callbacks);
//   leader->begin_epoch(epoch, std::make_unique<engine::gang_executor>(...));
//   TROUPE_TRY(id, leader->submit(request, sink));
#pragma once

#include <functional>
#include <memory>

#include "actors/gang_service.hpp"
#include "actors/leader/leader_machine.hpp"
#include "engine/engine.hpp"

namespace troupe::actors {

struct leader_parts {
  engine::engine_options engine;  // of each epoch's engine
  leader_options machine = {};
};

struct leader_callbacks {
  std::function<void(base::epoch_id)> proved;                      // a real step is done: ready
  std::function<void(base::epoch_id, const std::string&)> failed;  // a step failed
  std::function<void(base::epoch_id)> released;                    // its executor is destroyed
  std::function<void()> drained;                                   // no request is open any more
  // Adds what the gang knows (ranks, epoch, repairs ...) to a status. Any thread.
  std::function<void(gang_status&)> describe;
};

class leader final : public gang_service {
 public:
  [[nodiscard]] static std::unique_ptr<leader> start(leader_parts parts,
                                                     leader_callbacks callbacks);
  ~leader() override;

  // `numerics` is what the tokens depend on beside the model: requests go on in an epoch of the
  // same.
  void begin_epoch(base::epoch_id epoch, std::unique_ptr<engine::executor> ranks,
                   std::string numerics = {});
  void end_epoch(base::epoch_id epoch, std::string reason);
  void drain();

  base::result<base::request_id> submit(completion_request request,
                                        std::shared_ptr<completion_sink> sink) override;
  void cancel(base::request_id id) override;
  void finish_choice(base::request_id id, std::uint32_t choice) override;
  gang_status status() const override;

 private:
  class impl;
  explicit leader(std::unique_ptr<impl> made);
  std::unique_ptr<impl> impl_;
};

}  // namespace troupe::actors
