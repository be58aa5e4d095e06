// What supervisor_machine is told and what it decides: plain values, without a clock or I/O.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/process.hpp"
#include "schemas/supervisor_message.hpp"
#include "supervisor/vitals_watch.hpp"

namespace troupe::supervisor {

// A connection to another node's supervisor, numbered by the shell, never reused.
using connection_id = base::strong_id<struct connection_tag, std::uint64_t>;

namespace event {
struct begin {};
struct timer {};  // the time next_due() gave has come
struct signal_came {
  int number = 0;  // SIGTERM, SIGINT or SIGHUP
};

struct rank_started {
  base::rank_id rank;
};
struct rank_not_started {
  base::rank_id rank;
  std::string why;
};
struct rank_changed {
  base::rank_id rank;
  base::child_change change;
};
struct rank_said {
  base::rank_id rank;
  schemas::supervisor_message message;
};
struct rank_garbled {
  base::rank_id rank;
  std::string why;
};
// It has left more unread than the shell keeps for it.
struct rank_does_not_read {
  base::rank_id rank;
};
struct vitals_seen {
  base::rank_id rank;
  vitals_sample sample;
};

struct segment_made {
  base::epoch_id epoch;
};
struct segment_not_made {
  base::epoch_id epoch;
  std::string why;
};

// The dialling side: a connection stands; its peer has said nothing yet.
struct peer_opened {
  connection_id connection;
};
struct peer_not_reached {
  std::string why;
};
struct peer_said {
  connection_id connection;
  schemas::supervisor_message message;
};
struct peer_gone {
  connection_id connection;
  std::string why;
};
struct stranger_refused {
  std::string why;
};
}  // namespace event

using machine_event = std::variant<
    event::begin, event::timer, event::signal_came, event::rank_started, event::rank_not_started,
    event::rank_changed, event::rank_said, event::rank_garbled, event::rank_does_not_read,
    event::vitals_seen, event::segment_made, event::segment_not_made, event::peer_opened,
    event::peer_not_reached, event::peer_said, event::peer_gone, event::stranger_refused>;

namespace effect {
struct spawn {
  base::rank_id rank;
};
struct kill {  // SIGKILL
  base::rank_id rank;
};
struct tell {
  base::rank_id rank;
  schemas::supervisor_message message;
};
struct read_vitals {  // answered by vitals_seen
  base::rank_id rank;
};

struct make_segment {  // answered by segment_made or segment_not_made
  base::epoch_id epoch;
  int ranks = 0;
};
struct send_segment {  // the one that was made last
  base::rank_id rank;
  base::epoch_id epoch;
};
struct abort_segment {};

// Answer HTTP in rank 0's place, or leave it to rank 0.
struct stand_in {
  bool on = false;
  std::string reason;  // for the answers
};
struct write_out {
  std::string json;  // without the newline
};
struct write_log {
  base::log_level level = base::log_level::info;
  std::string line;
};

struct dial {};  // answered by peer_opened or peer_not_reached
struct tell_peer {
  connection_id connection;
  schemas::supervisor_message message;
};
// The peer has shown who it is: the deadline for that no longer holds.
struct accept_peer {
  connection_id connection;
};
struct close_peer {  // after what it was told; no peer_gone follows
  connection_id connection;
};

struct finish {
  int exit_code = 0;
  std::string cause;
};
}  // namespace effect

using machine_effect =
    std::variant<effect::spawn, effect::kill, effect::tell, effect::read_vitals,
                 effect::make_segment, effect::send_segment, effect::abort_segment,
                 effect::stand_in, effect::write_out, effect::write_log, effect::dial,
                 effect::tell_peer, effect::accept_peer, effect::close_peer, effect::finish>;
using machine_effects = std::vector<machine_effect>;

}  // namespace troupe::supervisor
