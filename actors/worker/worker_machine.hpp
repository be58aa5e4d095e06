// A rank as a member of its gang: finds the leader, joins, loads, follows the leader's epochs.
// Every rank has one, rank 0 too.
//
// Three small machines that know of each other:
//
//   link    seeking -dial-> dialing -up-> joining -welcome-> welcomed
//              ^               |             |  ^               |
//              |<--- down -----+-------------+--|---------------+
//                                  refusal ->|  |<- back-off
//                                          refused -(patience over)-> gives up, exit 3
//
//   weights none -started-> loading -loaded-> packed      (speculatively for the own fastest path;
//                              ^                |          a welcome that names another loads
//                              again)
//                              +---- welcome ---+
//
//   place   out -prepare-> opening -opened-> opened -connect-> connecting -connected-> serving
//            ^                |                |                  |                      |
//            |                +---- failed, epoch_ended, rank_lost, link down, newer ----+
//            |                                 v
//            +---- the host's completion --- leaving      (at once where none is outstanding)
//
// A rank says `loaded` when it is welcomed, packed and out, and again until it is prepared. It says
// prepared and connected again when asked again. Whatever comes of an earlier epoch, connection or
// load is dropped and counted; a prepare or connect of an epoch it has left it answers with
// epoch_ended. Messages are taken in ascending sequence only.
//
//   worker_machine machine(options);
//   for (worker::effect& effect : machine.step(worker::started{}, now)) carry_out(effect);
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/machine.hpp"
#include "actors/worker/worker_events.hpp"

namespace troupe::actors {

struct worker_options {
  schemas::join_request self;  // what this rank says of itself; it loads for the first path
  int world_size = 1;
  // How long without a leader that takes this rank, before it gives up.
  milliseconds patience = std::chrono::minutes(10);
  std::uint64_t jitter_seed = 0;
};

// Why these: a control message takes about 0.3 ms, so a second without an answer means it is lost;
// a leader that restarts is back within tens of milliseconds, one that boots takes seconds.
struct worker_times {
  static constexpr milliseconds resend{1000};
  static constexpr milliseconds dial_first{50};
  static constexpr milliseconds dial_last{2000};
  static constexpr milliseconds refused_first{1000};
  static constexpr milliseconds refused_last{15000};
  static constexpr milliseconds load_again_first{1000};
  static constexpr milliseconds load_again_last{30000};
  static constexpr milliseconds progress_every{1000};
  static constexpr milliseconds say_every{10000};
};

enum class worker_link : std::uint8_t { seeking, dialing, joining, refused, welcomed };
enum class worker_weights : std::uint8_t { none, loading, packed };
enum class worker_place : std::uint8_t { out, opening, opened, connecting, serving, leaving };

class worker_machine {
 public:
  explicit worker_machine(worker_options options);

  // `now` never goes back.
  [[nodiscard]] std::vector<worker::effect> step(const worker::event& event, time_point now);

  [[nodiscard]] worker_link link() const noexcept { return link_; }
  [[nodiscard]] worker_weights weights() const noexcept { return weights_; }
  [[nodiscard]] worker_place place() const noexcept { return place_; }
  // The one it is in or is leaving; zero when out.
  [[nodiscard]] base::epoch_id epoch() const noexcept { return epoch_; }
  [[nodiscard]] bool over() const noexcept { return over_; }
  // Messages dropped: of an earlier epoch or incarnation; repeated or overtaken.
  [[nodiscard]] std::uint64_t stale_dropped() const noexcept { return stale_dropped_; }
  [[nodiscard]] std::uint64_t repeated_dropped() const noexcept { return repeated_dropped_; }

 private:
  void on(const worker::started& event);
  void on(const worker::leader_at& event);
  void on(const worker::leader_unknown& event);
  void on(const worker::control_up& event);
  void on(const worker::control_down& event);
  void on(const worker::received& event);
  void on(const worker::weights_loaded& event);
  void on(const worker::load_failed& event);
  void on(const worker::load_progress& event);
  void on(const worker::plane_opened& event);
  void on(const worker::plane_connected& event);
  void on(const worker::plane_failed& event);
  void on(const worker::loop_ended& event);
  void on(const worker::rank_lost& event);
  void on(const worker::drain& event);
  void on(const worker::timer& event);

  void take(const schemas::welcome& message);
  void take(const schemas::refusal& message);
  void take(const schemas::prepare& message);
  void take(const schemas::connect& message);
  void take(const schemas::epoch_ended& message);
  template <class Other>
  void take(const Other& message);  // what only a worker may say

  void hang_up_and_seek(const std::string& why);
  void seek(const std::string& why);
  void dial_leader();
  void ask_to_join();
  void say(decltype(schemas::control_message::body) body);
  void say_loaded();  // where it is true
  void load(const std::string& path);
  void completed(base::epoch_id epoch, const std::string& failure);
  void leave(const std::string& why);
  void left();
  [[nodiscard]] bool stale(base::epoch_id epoch);
  void end(int exit_code, std::string reason);
  void run_deadlines();
  void show();
  void sleep();
  [[nodiscard]] schemas::rank_phase phase() const;
  [[nodiscard]] std::string detail() const;
  void check_invariants() const;

  worker_options options_;
  jitter chance_;
  time_point now_{};
  std::vector<worker::effect> effects_;

  worker_link link_ = worker_link::seeking;
  std::optional<worker::leader_at> leader_;
  std::uint64_t dial_ = 1;      // the connection that counts, if there is one
  std::uint64_t sent_ = 0;      // on this connection
  std::uint64_t received_ = 0;  // the last sequence taken on this connection
  std::uint64_t incarnation_ = 0;
  std::string why_seeking_;
  std::string refusal_;
  back_off dial_pause_{worker_times::dial_first, worker_times::dial_last};
  back_off refused_pause_{worker_times::refused_first, worker_times::refused_last};

  worker_weights weights_ = worker_weights::none;
  std::uint64_t load_ = 0;
  std::string path_;  // that the weights are, or are being, packed for
  std::array<std::uint8_t, 32> share_digest_{};
  schemas::loading_progress progress_;
  back_off load_pause_{worker_times::load_again_first, worker_times::load_again_last};

  worker_place place_ = worker_place::out;
  base::epoch_id epoch_;
  std::uint64_t left_number_ = 0;  // of the newest epoch left in this incarnation
  bool host_busy_ = false;         // a completion of the host is outstanding
  std::vector<std::uint8_t> address_;
  std::string why_leaving_;

  bool draining_ = false;
  bool over_ = false;
  std::uint64_t stale_dropped_ = 0;
  std::uint64_t repeated_dropped_ = 0;

  deadline dial_due_, resend_due_, load_due_, drain_due_, say_due_;
  time_point progress_due_{};
  deadline seeking_since_, refused_since_;
  deadline wake_;  // as last told to the shell
  std::optional<schemas::phase_changed> shown_;
};

}  // namespace troupe::actors
