// How the ranks of a gang find each other over TLS: each rank dials those below it and takes calls
// from those above, in one loop of one thread, in whatever order the ranks start.
//
// Anybody may call: strangers, the silent, and members of another epoch are kept apart in calls
// with a deadline each, bounded in number, and turned away with a reason; they cost the gang
// nothing but the time of their handshakes. Internal to transport/.
#pragma once

#include "base/fd.hpp"
#include "transport/tls_call.hpp"
#include "transport/tls_mesh.hpp"
#include "transport/tls_stop.hpp"
#include "transport/tls_wire.hpp"

#include <poll.h>

#include <chrono>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace troupe::transport {

class tls_meeting {
 public:
  // A call that has not become a rank's connection by then is dropped; a handshake takes
  // milliseconds.
  static constexpr std::chrono::seconds call_patience{5};
  // Calls under way at once; the oldest accepted one gives way. Ten times a gang's ranks, and a
  // call's buffers take some 50 KiB.
  static constexpr std::size_t calls_max = 640;

  struct parts {
    data_plane_seat seat;
    const base::tls_context& server;
    const base::tls_context& client;
    std::shared_ptr<tls_stop> stop;
    std::shared_ptr<tls_counters> counters;
  };
  // `where` has an entry for each rank below this one.
  tls_meeting(parts given, base::fd listener, std::vector<tls_wire::endpoint> where);
  tls_meeting(const tls_meeting&) = delete;
  tls_meeting& operator=(const tls_meeting&) = delete;
  ~tls_meeting();

  // One link a rank, known to `stop`. The listener is closed when this returns. Called once.
  // Errors: unavailable (who is missing, and why), unauthenticated (a dialled rank is not of this
  // gang), invalid_argument (a dialled rank is of another world), aborted.
  [[nodiscard]] base::result<std::vector<tls_link>> hold(std::chrono::milliseconds patience);

 private:
  using time = std::chrono::steady_clock::time_point;
  struct pending_call {
    tls_call call;
    time deadline;
  };
  using call_list = std::list<pending_call>;
  struct seat_state {
    tls_link link;
    bool promised = false;  // a call to or from it is under way
    time next_try;          // of a rank to dial
    std::string trouble;    // the last failure, for the line at the end
  };

  base::result<void> turn(time deadline);
  [[nodiscard]] std::vector<pollfd> polled() const;
  [[nodiscard]] time next_event(time deadline) const;
  base::result<void> dial_due(time now, time deadline);
  base::result<void> take_calls(time now);
  base::result<void> advance_all(std::span<const pollfd> sockets, time now);
  base::result<void> look_for_resets(const std::vector<pollfd>& polled) const;
  base::result<void> end_of(const tls_call& ended, const base::error& why);
  void seat(tls_call& one);
  bool drop_oldest();
  [[nodiscard]] bool complete() const noexcept;
  [[nodiscard]] base::error missing(std::chrono::milliseconds patience) const;
  [[nodiscard]] int size() const noexcept { return static_cast<int>(seats_.size()); }
  [[nodiscard]] seat_state& of(int rank) { return seats_[static_cast<std::size_t>(rank)]; }

  const std::shared_ptr<tls_stop> stop_;
  const std::shared_ptr<tls_counters> counters_;
  const int rank_;
  base::fd listener_;
  const std::vector<tls_wire::endpoint> where_;
  std::vector<seat_state> seats_;
  const tls_desk desk_;
  call_list calls_;       // oldest first
  std::string stranger_;  // why the last caller that is no rank was turned away
};

}  // namespace troupe::transport
