// The gang as its leader sees it: who has joined, in which epoch they are, whether it may serve.
// One in rank 0's process; the process's life is the incarnation.
//
//   gathering -all waiting-> [segment] -ready-> preparing -all prepared-> connecting
//      ^                         |                  |                         |
//      |                         |                  |                    all connected
//      |                         |                  |                         v
//      +----- a rank lost, left or late, epoch_failed: epoch_ended ------- proving -canary->
//      serving | |
//      +----------------------------------------------------------------------------------------+
//   any -drain-> (serving: until drained) -> over;   gathering -patience-> over, exit 4
//
//   a rank: absent -join-> loading -loaded-> waiting -prepare-> preparing -> prepared
//              ^                                ^                              |
//              |                                |                   connect -> connecting
//        down, lost, refused          `loaded` again: it is out                |
//              |                                |                          connected
//              +--------- any                leaving <---- epoch ends -----    v
//
// A new epoch begins only when every rank has said that it is in none, so no two epochs ever have
// all ranks. What is not answered is said again. Messages are taken in ascending sequence per
// connection only. The common instruction path only narrows while the incarnation lives.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "actors/gang/gang_events.hpp"
#include "actors/gang/join_check.hpp"
#include "actors/gang_service.hpp"
#include "actors/machine.hpp"

namespace troupe::actors {

// Why a rank's share of the weights is wrong; empty: it is right. Called once rank 0 has loaded:
// what is right is known by then, and stays.
using share_check = std::function<std::optional<std::string>(const schemas::join_request& rank,
                                                             const schemas::loaded& share)>;

struct gang_options {
  join_rules rules;
  std::uint64_t incarnation = 0;  // 64 random bits, not 0
  bool wants_segment = false;     // one host: the data plane is a shared segment
  share_check check_share = {};   // none: any share is right
  // How long without serving, while no rank gets on with loading, before the gang gives up.
  milliseconds patience = std::chrono::minutes(10);
  // A first step touches all weights, perhaps from disk.
  milliseconds canary_patience = std::chrono::minutes(2);
  std::uint64_t jitter_seed = 0;
};

struct gang_times {
  static constexpr milliseconds resend{1000};
  // For the segment, for all to open, for all to connect (the plane's own patience is 10 s).
  static constexpr milliseconds formation{15000};
  static constexpr milliseconds again_first{100};
  static constexpr milliseconds again_last{5000};
  static constexpr milliseconds say_every{10000};
};

enum class gang_phase : std::uint8_t {
  gathering,
  segment,
  preparing,
  connecting,
  proving,
  serving,
  over,
};
enum class member_state : std::uint8_t {
  absent,
  loading,
  waiting,
  preparing,
  prepared,
  connecting,
  connected,
  leaving,
};
[[nodiscard]] constexpr bool is_in_epoch(member_state state) noexcept {
  return state >= member_state::preparing && state <= member_state::connected;
}

// For gang_service; a copy is handed out after every change.
struct gang_view {
  base::epoch_id epoch;  // of the formation under way or serving; number 0: none yet
  bool ready = false;
  bool draining = false;
  std::string not_ready;         // why, one line
  std::string instruction_path;  // common so far
  std::vector<rank_status> ranks;
  std::uint64_t repairs = 0;
  std::uint64_t stale_dropped = 0;
};

class gang_machine {
 public:
  explicit gang_machine(gang_options options);

  // `now` never goes back.
  [[nodiscard]] std::vector<gang::effect> step(const gang::event& event, time_point now);

  [[nodiscard]] gang_phase phase() const noexcept { return phase_; }
  [[nodiscard]] base::epoch_id epoch() const noexcept { return epoch_; }
  [[nodiscard]] gang_view view() const;
  [[nodiscard]] std::uint64_t repeated_dropped() const noexcept { return repeated_dropped_; }

 private:
  struct connection {
    std::uint64_t received = 0;  // the last sequence taken
    std::uint64_t sent = 0;
    std::optional<base::rank_id> rank;  // joined as
  };
  struct member {
    member_state state = member_state::absent;
    connection_id at;  // while not absent
    schemas::join_request said;
    std::uint64_t loaded_bytes = 0;
    std::uint64_t total_bytes = 0;
    std::optional<schemas::loaded> unchecked;  // its share, while rank 0 still loads
    std::vector<std::uint8_t> address;         // while prepared and later
    std::string detail;                        // why absent
    std::uint64_t restarts = 0;
  };

  void on(const gang::started& event);
  void on(const gang::received& event);
  void on(const gang::connection_down& event);
  void on(const gang::rank_lost& event);
  void on(const gang::segment_ready& event);
  void on(const gang::canary_done& event);
  void on(const gang::epoch_failed& event);
  void on(const gang::drain& event);
  void on(const gang::drained& event);
  void on(const gang::timer& event);

  void join(connection_id from, const schemas::join_request& asks);
  void take(member& who, const schemas::loading_progress& message);
  void take(member& who, const schemas::loaded& message);
  void check_shares();
  void take(member& who, const schemas::prepared& message);
  void take(member& who, const schemas::connected& message);
  void take(member& who, const schemas::epoch_ended& message);
  template <class Other>
  void take(member& who, const Other& message);  // what only a leader may say

  void refuse(connection_id to, const schemas::join_request& asks, std::string reason);
  void welcome(const member& who);
  void narrow(std::vector<std::string> paths);
  void lose(member& who, std::string why);
  void hang_up(connection_id on);
  void advance();
  void begin_epoch();
  void enter(gang_phase phase, milliseconds patience);
  void prepare_all();
  void connect_all();
  void end_epoch(const std::string& why);
  void ask(member& who);  // says again what the rank has not answered
  void finish(int exit_code, std::string reason);
  void run_deadlines();
  void say(connection_id to, decltype(schemas::control_message::body) body);
  void show();
  void sleep();
  [[nodiscard]] bool all(member_state state) const;
  [[nodiscard]] bool stale(base::epoch_id epoch);
  [[nodiscard]] bool forming_or_serving() const noexcept;
  [[nodiscard]] std::string missing() const;  // "rank 2 has not joined, rank 3 loads (40 %)"
  [[nodiscard]] std::string describe(const member& who) const;
  [[nodiscard]] std::string not_serving() const;
  void check_invariants() const;

  gang_options options_;
  jitter chance_;
  time_point now_{};
  std::vector<gang::effect> effects_;

  gang_phase phase_ = gang_phase::gathering;
  base::epoch_id epoch_;
  std::vector<member> members_;  // by rank
  std::map<connection_id, connection> connections_;
  std::vector<std::string> paths_;                // common to all that have joined, best first
  std::map<base::rank_id, std::string> refused_;  // the last line logged
  std::string why_ended_;                         // the last epoch

  bool draining_ = false;
  std::uint64_t repairs_ = 0;
  std::uint64_t stale_dropped_ = 0;
  std::uint64_t repeated_dropped_ = 0;
  back_off again_{gang_times::again_first, gang_times::again_last};

  deadline phase_due_, again_due_, drain_due_;
  deadline resend_due_, say_due_;  // none: while serving
  deadline not_serving_since_;     // or since a rank got on with loading
  deadline wake_;                  // as last told to the shell
  std::optional<gang_phase> shown_;
};

}  // namespace troupe::actors
