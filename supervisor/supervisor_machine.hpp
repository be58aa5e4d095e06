// What a supervisor decides, without a clock or I/O: step(event, now) -> effects.
//
//   one local rank                                the supervisor
//
//   waiting --due--> starting --> running         serving --SIGTERM--> draining (rank 0 first)
//      ^                             |               |                    | rank 0 has ended, or
//      |                             | stopped,      |                    v its patience is over
//      | exited                      | wedged        |                 leaving (all others)
//      +----------- dying <----------+               |                    |
//      |               ^                             +----> ending <------+ patience is over
//      |               | ending                              | all ranks have ended
//      v               |                                     v
//    ended <-----------+ (not serving any more)           finished
//
// A rank is lost at the first sign of it (stopped, wedged, exited): the segment is aborted first,
// then every other rank and node is told. It is started again when its process has ended and its
// back-off is over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "supervisor/events.hpp"
#include "supervisor/health.hpp"
#include "supervisor/node_watch.hpp"
#include "supervisor/restart_policy.hpp"
#include "supervisor/vitals_watch.hpp"

namespace troupe::supervisor {

struct machine_options {
  int world_size = 1;
  int node_rank = 0;
  int nnodes = 1;
  std::string build_id = {};
  bool has_http = false;  // rank 0's socket, in whose place the stand-in answers
  std::string url = {};
  bool one_shot = false;
  restart_bound restarts = {};
  std::chrono::milliseconds drain_patience{100'000};
  std::chrono::milliseconds leave_patience{2'000};
};

class supervisor_machine {
 public:
  static constexpr std::chrono::milliseconds tick_every{100};
  static constexpr std::chrono::milliseconds late_by{200};
  static constexpr std::chrono::milliseconds ping_every{500};
  // So many pings without an answer, and no more are sent: its mailbox must not fill.
  static constexpr std::uint64_t pings_open_max = 8;
  // A killed process ends at once, but for one that is stuck in the kernel.
  static constexpr std::chrono::milliseconds end_patience{5'000};

  explicit supervisor_machine(machine_options options);

  [[nodiscard]] machine_effects step(const machine_event& event, base::steady_time now);
  // When the next `timer` is due. Range: at most tick_every from the last one.
  [[nodiscard]] base::steady_time next_due() const;
  [[nodiscard]] health_status health() const;
  [[nodiscard]] bool finished() const noexcept { return stage_ == stage::finished; }

 private:
  enum class stage : std::uint8_t { serving, draining, leaving, ending, finished };
  enum class state : std::uint8_t { waiting, starting, running, dying, ended };
  struct slot {
    base::rank_id rank;
    state is = state::waiting;
    base::steady_time due = {};      // waiting, dying: when to start it
    base::steady_time started = {};  // running
    restart_policy policy;
    vitals_watch vitals = {};
    std::uint64_t pings = 0;     // sent to this process
    std::uint64_t answered = 0;  // the last one it answered
    std::uint64_t odd_messages = 0;
    std::string last_loss = {};
    schemas::phase_changed phase = {};
  };

  void on(const event::begin&);
  void on(const event::timer&);
  void on(const event::signal_came&);
  void on(const event::rank_started&);
  void on(const event::rank_not_started&);
  void on(const event::rank_changed&);
  void on(const event::rank_said&);
  void on(const event::rank_garbled&);
  void on(const event::rank_does_not_read&);
  void on(const event::vitals_seen&);
  void on(const event::segment_made&);
  void on(const event::segment_not_made&);
  void on(const event::peer_opened&);
  void on(const event::peer_not_reached&);
  void on(const event::peer_said&);
  void on(const event::peer_gone&);
  void on(const event::stranger_refused&);

  void said(slot& from, const schemas::pong& message);
  void said(slot& from, const schemas::control_plane_listens& message);
  void said(slot& from, const schemas::segment_wanted& message);
  void said(slot& from, const schemas::phase_changed& message);
  void said(slot& from, const schemas::announce& message);
  void said(slot& from, const schemas::give_up& message);
  template <class Other>
  void said(slot& from, const Other&);

  void tick(bool late);
  void start(slot& one);
  void kill(slot& one);
  void lose(slot& lost, const std::string& cause);
  void exited(slot& one, const base::child_change& change);
  void other_node_lost(const node_watch::losses& losses);
  void leave_epoch(const schemas::rank_lost& loss);
  void drain(const char* signal);
  void leave();
  void end(int exit_code, const std::string& cause);
  void finish_when_all_ended();
  void set_stand_in();
  void odd(slot& from, const std::string& what);
  void log(base::log_level level, const std::string& line);
  void check_invariants() const;

  [[nodiscard]] slot* find(base::rank_id rank);
  [[nodiscard]] slot* leader() { return find(base::rank_id{0}); }
  [[nodiscard]] static bool has_process(const slot& one) {
    return one.is == state::running || one.is == state::dying || one.is == state::starting;
  }

  machine_options options_;
  std::vector<slot> slots_;  // the local ranks, ascending
  node_watch nodes_;
  stage stage_ = stage::serving;
  base::steady_time now_;  // of the step
  base::steady_time tick_due_;
  base::steady_time ping_due_;
  std::optional<base::steady_time> patience_due_;  // draining, leaving, ending
  schemas::control_plane_at control_plane_;
  std::optional<base::epoch_id> segment_;  // made or being made, not aborted
  base::epoch_id ended_epoch_;             // reports of it are old
  std::string why_not_joined_ = "the gang has not formed yet";
  bool stand_in_ = false;
  int exit_code_ = 0;
  std::string cause_;
  machine_effects effects_;  // of the step
};

}  // namespace troupe::supervisor
