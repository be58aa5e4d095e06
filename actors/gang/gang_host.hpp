// What the gang's shell needs of rank 0's process: the supervisor's segment, the leader.
//
// Called on the shell's thread only; no call may block or throw. Answers are events of
// gang_events.hpp, posted from any thread.
#pragma once

#include <functional>

#include "actors/gang/gang_events.hpp"
#include "actors/gang/gang_machine.hpp"

namespace troupe::actors {

// Any thread, also after the runtime has gone (then nothing happens).
using gang_post = std::function<void(gang::event)>;

class gang_host {
 public:
  gang_host() = default;
  gang_host(const gang_host&) = delete;
  gang_host& operator=(const gang_host&) = delete;
  virtual ~gang_host() = default;

  // First call of all.
  virtual void begin(gang_post post) = 0;

  // -> segment_ready
  virtual void want_segment(const gang::want_segment& order) = 0;
  // -> canary_done or epoch_failed; later perhaps epoch_failed
  virtual void serve(const gang::serve& order) = 0;
  // The epoch is over: end its requests, abort rank 0's plane.
  virtual void stop_serving(const gang::stop_serving& order) = 0;

  // After every step that changed it; for gang_service::status().
  virtual void view_changed(const gang_view& view) = 0;
  virtual void log(const gang::log& line) = 0;
  // The process is to end with that code; nothing is called after it.
  virtual void give_up(const gang::give_up& last) = 0;
};

}  // namespace troupe::actors
