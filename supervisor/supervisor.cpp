#include "supervisor/supervisor.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/signals.hpp"
#include "supervisor/announcements.hpp"
#include "supervisor/health_socket.hpp"
#include "supervisor/node_link.hpp"
#include "supervisor/poll_set.hpp"
#include "supervisor/rank_process.hpp"
#include "supervisor/segments.hpp"
#include "supervisor/stand_in.hpp"
#include "supervisor/supervisor_machine.hpp"

namespace troupe::supervisor {
namespace {

machine_options machine_options_of(const options& chosen) {
  machine_options made{.world_size = chosen.world_size,
                       .build_id = {},
                       .has_http = static_cast<bool>(chosen.http),
                       .url = chosen.url,
                       .one_shot = chosen.one_shot,
                       .restarts = chosen.restarts,
                       .drain_patience = chosen.drain_patience,
                       .leave_patience = chosen.leave_patience};
  if (chosen.link) {
    made.node_rank = chosen.link->node_rank;
    made.nnodes = chosen.link->nnodes;
    made.build_id = chosen.link->build_id;
  }
  return made;
}

// PID 1, or one that asked for them, is given the orphans below it.
bool inherits_orphans() {
  int subreaper = 0;
  ::prctl(PR_GET_CHILD_SUBREAPER, &subreaper, 0, 0, 0);
  return ::getpid() == 1 || subreaper != 0;
}

// A rank that ends has at most what its socket held unread.
constexpr int last_turns = 8;

// The machine's hands: waits, turns what happens into events, and carries out effects.
class shell {
 public:
  shell(options chosen, const base::logger& log, base::signal_source signals)
      : machine_(machine_options_of(chosen)),
        options_(std::move(chosen)),
        log_(log),
        signals_(std::move(signals)),
        out_(options_.out),
        stand_in_(options_.http.get()) {}

  base::result<void> prepare();
  ended run();

 private:
  void step(const machine_event& first);
  void wait();
  void carry_out(const effect::spawn& what);
  void carry_out(const effect::kill& what);
  void carry_out(const effect::tell& what);
  void carry_out(const effect::read_vitals& what);
  void carry_out(const effect::make_segment& what);
  void carry_out(const effect::send_segment& what);
  void carry_out(const effect::abort_segment& what);
  void carry_out(const effect::stand_in& what) { stand_in_.set(what.on, what.reason); }
  void carry_out(const effect::write_out& what) { out_.add(what.json); }
  void carry_out(const effect::write_log& what) { log_.write(what.level, what.line); }
  void carry_out(const effect::dial&) { link_->dial(); }
  void carry_out(const effect::tell_peer& what) { link_->tell(what.connection, what.message); }
  void carry_out(const effect::accept_peer& what) { link_->accept(what.connection); }
  void carry_out(const effect::close_peer& what) { link_->close(what.connection); }
  void carry_out(const effect::finish& what) { end_ = {what.exit_code, what.cause}; }

  void watch_rank(base::rank_id rank, const rank_process& process);
  void hear(base::rank_id rank);
  void take_signals();
  void look_at_children();
  void deliver(base::rank_id rank, const schemas::supervisor_message& message, int descriptor);

  supervisor_machine machine_;
  options options_;
  const base::logger& log_;
  base::signal_source signals_;
  announcements out_;
  stand_in stand_in_;
  std::optional<base::credential_files> credentials_;
  std::optional<health_socket> health_;
  std::unique_ptr<node_link> link_;
  std::map<base::rank_id, rank_process> processes_;
  std::optional<made_segment> segment_;
  std::deque<machine_event> events_;
  poll_set polls_;
  std::function<health_status()> status_ = [this] { return machine_.health(); };
  ended end_;
};

base::result<void> shell::prepare() {
  if (!options_.make_segment) options_.make_segment = make_transport_segment;
  if (options_.credentials) {
    TROUPE_TRY(files, base::seal_credentials(*options_.credentials));
    credentials_ = std::move(files);
  }
  if (options_.link) {
    TROUPE_TRY(link, node_link::make(std::move(*options_.link), options_.credentials));
    link_ = std::move(link);
  }
  if (!options_.state_dir.empty()) {
    auto made = health_socket::open({options_.state_dir, options_.name});
    if (made) {
      health_.emplace(std::move(*made));
    } else {
      // A gang serves without it; the probe says that nobody answers.
      log_.warning(fmt::format("`troupe health` will not work: {}", made.error().message));
    }
  }
  return {};
}

ended shell::run() {
  step(event::begin{});
  while (!machine_.finished()) {
    wait();
    const base::steady_time now = base::steady_now();
    stand_in_.expire(now);
    if (link_ != nullptr) {
      link_->expire(now);
      for (auto some = link_->take_events(); !some.empty(); some = link_->take_events()) {
        for (const machine_event& one : some) step(one);
      }
    }
    // After all that has arrived: a process that did not run for a while hears the others first.
    if (now >= machine_.next_due()) step(event::timer{});
    out_.flush();
  }
  out_.flush();
  return std::move(end_);
}

void shell::step(const machine_event& first) {
  events_.push_back(first);
  while (!events_.empty()) {
    const machine_event one = std::move(events_.front());
    events_.pop_front();
    for (const machine_effect& effect : machine_.step(one, base::steady_now())) {
      std::visit([this](const auto& what) { carry_out(what); }, effect);
    }
  }
}

void shell::wait() {
  polls_.add(signals_.descriptor(), POLLIN, [this](short) { take_signals(); });
  for (const auto& [rank, process] : processes_) watch_rank(rank, process);
  stand_in_.watch(polls_);
  if (health_) health_->watch(polls_, status_);
  if (link_ != nullptr) link_->watch(polls_);
  base::steady_time until = machine_.next_due();
  if (const auto due = stand_in_.next_due()) until = std::min(until, *due);
  if (link_ != nullptr) {
    if (const auto due = link_->next_due()) until = std::min(until, *due);
  }
  polls_.wait(until);
}

void shell::watch_rank(base::rank_id rank, const rank_process& process) {
  polls_.add(process.child().handle.get(), POLLIN, [this](short) { look_at_children(); });
  if (!process.channel_is_open()) return;
  const short events = process.has_outbox() ? POLLIN | POLLOUT : POLLIN;
  polls_.add(process.channel_descriptor(), events, [this, rank](short) {
    if (const auto at = processes_.find(rank); at != processes_.end()) at->second.flush();
    hear(rank);
  });
}

void shell::hear(base::rank_id rank) {
  const auto at = processes_.find(rank);
  if (at == processes_.end()) return;
  const rank_process::heard all = at->second.receive();
  for (const schemas::supervisor_message& one : all.messages) step(event::rank_said{rank, one});
  for (const std::string& why : all.refused) step(event::rank_garbled{rank, why});
}

void shell::take_signals() {
  while (const std::optional<int> number = signals_.next()) {
    if (*number == SIGCHLD) {
      look_at_children();
    } else {
      step(event::signal_came{*number});
    }
  }
}

// A rank's last words come before its end.
void shell::look_at_children() {
  std::vector<base::rank_id> ranks;
  ranks.reserve(processes_.size());
  for (const auto& [rank, process] : processes_) ranks.push_back(rank);
  for (const base::rank_id rank : ranks) {
    const auto at = processes_.find(rank);
    if (at == processes_.end()) continue;
    auto change = base::change_of(at->second.child());
    while (change && *change && (*change)->kind == base::child_change::what::stopped) {
      step(event::rank_changed{rank, **change});
      change = base::change_of(at->second.child());
    }
    if (change && !*change) continue;
    for (int turn = 0; turn < last_turns; ++turn) hear(rank);
    processes_.erase(rank);
    const base::child_change end =
        change ? **change : base::child_change{base::child_change::what::killed, 0};
    step(event::rank_changed{rank, end});
  }
  if (!inherits_orphans()) return;
  std::vector<pid_t> known;
  for (const auto& [rank, process] : processes_) known.push_back(process.child().id);
  if (link_ != nullptr && link_->child()) known.push_back(*link_->child());
  base::reap_orphans(known);
}

void shell::carry_out(const effect::spawn& what) {
  const bool first = what.rank.value == 0;
  auto started = rank_process::start({.rank = what.rank,
                                      .command = options_.command_of(what.rank),
                                      .credentials = credentials_ ? &*credentials_ : nullptr,
                                      .listening = first ? options_.http.get() : -1,
                                      .keeps_terminal = first && options_.one_shot});
  if (!started) {
    events_.push_back(event::rank_not_started{what.rank, started.error().message});
    return;
  }
  processes_.insert_or_assign(what.rank, std::move(*started));
  events_.push_back(event::rank_started{what.rank});
}

void shell::carry_out(const effect::kill& what) {
  const auto at = processes_.find(what.rank);
  if (at != processes_.end()) base::send_signal(at->second.child(), SIGKILL);
}

void shell::deliver(base::rank_id rank, const schemas::supervisor_message& message,
                    int descriptor) {
  const auto at = processes_.find(rank);
  if (at == processes_.end()) return;
  if (!at->second.tell(message, descriptor)) events_.push_back(event::rank_does_not_read{rank});
}

void shell::carry_out(const effect::tell& what) { deliver(what.rank, what.message, -1); }

void shell::carry_out(const effect::read_vitals& what) {
  const auto at = processes_.find(what.rank);
  if (at != processes_.end()) {
    events_.push_back(event::vitals_seen{what.rank, at->second.vitals()});
  }
}

void shell::carry_out(const effect::make_segment& what) {
  auto made = options_.make_segment(what.epoch, what.ranks);
  if (!made) {
    events_.push_back(event::segment_not_made{what.epoch, made.error().message});
    return;
  }
  segment_ = std::move(*made);
  events_.push_back(event::segment_made{what.epoch});
}

void shell::carry_out(const effect::send_segment& what) {
  if (segment_) deliver(what.rank, {schemas::segment{what.epoch}}, segment_->descriptor.get());
}

void shell::carry_out(const effect::abort_segment&) {
  if (segment_) segment_->abort();
  segment_.reset();
}

base::result<void> check_options(const options& chosen) {
  const auto refuse = [](const char* what) {
    return base::fail(base::error_code::invalid_argument, "supervisor", what);
  };
  if (!chosen.command_of) return refuse("no command for the ranks is given");
  if (chosen.world_size < 1) return refuse("a gang has at least one rank");
  if (!chosen.link) return {};
  const node_link_options& link = *chosen.link;
  if (link.nnodes < 1 || link.node_rank < 0 || link.node_rank >= link.nnodes) {
    return refuse("the node's rank is not below the number of nodes");
  }
  if (chosen.world_size % link.nnodes != 0) {
    return refuse("every node must hold the same number of ranks");
  }
  const bool dials = link.node_rank != 0;
  if (dials && link.leader_host.empty()) return refuse("the leader's host is not given");
  if (!dials && !link.listening) return refuse("the leader's node has no socket to listen on");
  return {};
}

}  // namespace

base::result<ended> run(options chosen, const base::logger& log) {
  TROUPE_TRY_VOID(check_options(chosen));
  TROUPE_TRY(signals, base::signal_source::take({SIGCHLD, SIGTERM, SIGINT, SIGHUP}));
  base::ignore_broken_pipes();
  shell one(std::move(chosen), log, std::move(signals));
  TROUPE_TRY_VOID(one.prepare());
  return one.run();
}

}  // namespace troupe::supervisor
