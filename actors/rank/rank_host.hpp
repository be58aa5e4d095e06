// A rank's weights, planes and plan loop, as its worker's shell asks for them.
//
// One thread of its own carries out what takes time: packing weights, connecting a plane, and on
// ranks above 0 the plan loop. On rank 0 a connected epoch waits until the gang says serve, then
// goes to whoever drives the engine (take_epoch) and comes back when that executor is destroyed.
// abort() cuts through from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "actors/rank/share_book.hpp"
#include "actors/rank/task_thread.hpp"
#include "actors/worker/worker_host.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "engine/executor.hpp"
#include "engine/rank_worker.hpp"
#include "models/weight_digest.hpp"
#include "transport/data_plane.hpp"

namespace troupe::actors {

// Opens this rank's end of a data plane. `segment`: that of the epoch, for shared memory.
using plane_opener = std::function<base::result<std::unique_ptr<transport::data_plane>>(
    const transport::data_plane_seat& seat, base::fd segment)>;

struct rank_host_options {
  engine::rank_worker_options engine;  // the profile's path is replaced by what the gang takes
  transport::world_shape shape;
  int rank = 0;
  std::uint64_t weight_bytes_expected = 0;  // for progress
  bool needs_segment = false;
  plane_opener open_plane;
  // Hashes the weights while they are loaded; none: the gang does not compare them.
  std::unique_ptr<models::weight_digest> digest = {};
  std::shared_ptr<share_book> shares = {};  // rank 0's, with `digest`: filled when it has loaded
  std::chrono::milliseconds connect_patience{10'000};
  std::function<void(const schemas::phase_changed&)> tell_phase;  // the supervisor
  std::function<void(const schemas::give_up&)> end;               // the process
};

class rank_host final : public worker_host {
 public:
  // Lifetime: the logger outlives the host; no epoch's executor does.
  rank_host(rank_host_options options, const base::logger& log);
  ~rank_host() override;

  // From the supervisor, any thread.
  void segment_arrived(base::epoch_id epoch, base::fd segment);
  // Ends every wait of the epoch that this rank is in, now. Any thread.
  void abort() noexcept;
  // Rank 0: the executor of a connected epoch, once. nullptr: the epoch is over already.
  [[nodiscard]] std::unique_ptr<engine::executor> take_epoch(base::epoch_id epoch);
  // Bytes over the data planes of all epochs so far. Any thread.
  [[nodiscard]] transport::data_plane_counters counters() const;

  void begin(worker_post post) override;
  void load(const worker::load& order) override;
  void open_plane(const worker::open_plane& order) override;
  void connect_plane(const worker::connect_plane& order) override;
  void start_loop(const worker::start_loop& order) override;
  void abort_plane(const worker::abort_plane& order) override;
  void log(const worker::log& line) override;
  void phase_changed(const worker::phase& phase) override;
  void give_up(const worker::give_up& last) override;

 private:
  class driven_epoch;
  // An epoch from open_plane to its completion.
  struct membership {
    base::epoch_id epoch;
    std::shared_ptr<transport::data_plane> plane;  // once opened
    transport::rank_groups groups;                 // once connected
    bool busy = false;  // a task of it is queued or runs: a completion will come
    bool connected = false;
    bool driven = false;  // rank 0: start_loop has come
    bool aborted = false;
    // For the waits of a device: set when the plane is aborted.
    std::shared_ptr<std::atomic<bool>> over = std::make_shared<std::atomic<bool>>(false);
  };

  void run_load(const worker::load& order);
  [[nodiscard]] base::result<base::digest> own_share();
  void run_open(base::epoch_id epoch, base::fd segment);
  void run_connect(const worker::connect_plane& order);
  void run_loop(base::epoch_id epoch);
  void closed(base::epoch_id epoch, worker::event completion);
  void end_if_device_failed(const base::error& cause);
  [[nodiscard]] std::shared_ptr<transport::data_plane> plane_of(base::epoch_id epoch) const;

  rank_host_options options_;
  const base::logger& log_;
  worker_post post_;
  std::atomic<bool> device_failed_{false};
  std::unique_ptr<engine::rank_worker> worker_;  // by the task thread, or by rank 0's driver

  mutable std::mutex mutex_;  // of what follows
  std::optional<membership> member_;
  std::map<base::epoch_id, base::fd> segments_;  // arrived and not used; the latest few
  std::optional<base::epoch_id> waits_for_segment_;
  transport::data_plane_counters counted_;  // of planes that are gone
  std::uint64_t newest_load_ = 0;

  task_thread tasks_;  // last: ends before the rest
};

}  // namespace troupe::actors
