// What a worker's shell needs of its process: weights, planes, the plan loop, the supervisor.
//
// Called on the shell's thread only; no call may block or throw. What takes time runs on threads of
// the host and ends in the event that worker_events.hpp names, posted from any thread.
#pragma once

#include <functional>

#include "actors/worker/worker_events.hpp"

namespace troupe::actors {

// Any thread, also after the runtime has gone (then nothing happens).
using worker_post = std::function<void(worker::event)>;

class worker_host {
 public:
  worker_host() = default;
  worker_host(const worker_host&) = delete;
  worker_host& operator=(const worker_host&) = delete;
  virtual ~worker_host() = default;

  // First call of all.
  virtual void begin(worker_post post) = 0;

  // -> weights_loaded or load_failed with the same number; load_progress meanwhile.
  virtual void load(const worker::load& order) = 0;
  // -> plane_opened or plane_failed
  virtual void open_plane(const worker::open_plane& order) = 0;
  // -> plane_connected or plane_failed
  virtual void connect_plane(const worker::connect_plane& order) = 0;
  // -> loop_ended
  virtual void start_loop(const worker::start_loop& order) = 0;
  // Ends what is going on in the epoch within 1 ms; its completion still comes.
  virtual void abort_plane(const worker::abort_plane& order) = 0;

  virtual void log(const worker::log& line) = 0;
  virtual void phase_changed(const worker::phase& phase) = 0;
  // The process is to end with that code; nothing is called after it.
  virtual void give_up(const worker::give_up& last) = 0;
};

}  // namespace troupe::actors
