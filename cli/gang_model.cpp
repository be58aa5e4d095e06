#include "cli/gang_model.hpp"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "cli/gang_launch.hpp"

namespace troupe::cli {

// Hands the first epoch's executor to the main thread.
class gang_member::state final : public actors::epoch_driver {
 public:
  void attach(actors::gang_process& process) override { told_ = &process; }
  void begin_epoch(base::epoch_id epoch, std::unique_ptr<engine::executor> ranks) override {
    const std::scoped_lock lock(mutex_);
    epoch_ = epoch;
    ranks_ = std::move(ranks);
    changed_.notify_all();
  }
  void end_epoch(base::epoch_id, const std::string& reason) override { give_up(reason); }
  void drain(std::chrono::milliseconds) override { give_up("asked to stop"); }
  void view_changed(const actors::gang_view&) override {}

  base::result<void> start(const rank_parts& parts) {
    TROUPE_TRY(inherited, inherit(parts.seat));
    inherited_.emplace(std::move(inherited));
    TROUPE_TRY(log, make_rank_log(parts));
    log_.emplace(std::move(log));
    TROUPE_TRY(setup, set_up_rank(parts, *inherited_));
    limits_ = setup.limits;
    TROUPE_TRY(process, actors::gang_process::start(std::move(setup.process), *log_, this));
    process_ = std::move(process);
    // What ends the gang while this waits arrives as the process's end.
    waiter_ = std::thread([this] { give_up(process_->wait().reason); });
    return {};
  }

  base::result<std::unique_ptr<engine::executor>> wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ranks_ != nullptr || ended_; });
    if (!ranks_) {
      return base::fail(base::error_code::unavailable, "cli", "the gang ended: " + *ended_);
    }
    told_->canary_done(epoch_);  // the command's own first step is as good
    return std::move(ranks_);
  }
  const engine_limits& limits() const noexcept { return limits_; }

 private:
  void give_up(const std::string& reason) {
    const std::scoped_lock lock(mutex_);
    if (!ended_) ended_ = reason;
    changed_.notify_all();
  }

  std::optional<rank_inheritance> inherited_;
  std::optional<base::logger> log_;
  engine_limits limits_;
  std::mutex mutex_;
  std::condition_variable changed_;
  base::epoch_id epoch_;
  std::unique_ptr<engine::executor> ranks_;
  std::optional<std::string> ended_;
  actors::gang_process* told_ = nullptr;
  std::unique_ptr<actors::gang_process> process_;
  std::thread waiter_;  // ends with the process, which does not return from main()
};

gang_member::gang_member(std::unique_ptr<state> made) : state_(std::move(made)) {}
gang_member::~gang_member() = default;

base::result<std::unique_ptr<gang_member>> gang_member::join(const rank_parts& parts) {
  auto made = std::make_unique<state>();
  TROUPE_TRY_VOID(made->start(parts));
  return std::unique_ptr<gang_member>(new gang_member(std::move(made)));
}

base::result<running_model> gang_member::start(const rank_parts& parts) {
  const auto begin = std::chrono::steady_clock::now();
  TROUPE_TRY(ranks, state_->wait());
  running_model running;
  running.max_model_len = state_->limits().max_model_len;
  running.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  running.peak_pss_bytes = resident_pss_bytes();
  running.ranks = std::move(ranks);
  running.engine = std::make_unique<engine::engine>(
      *running.ranks, engine_options_of(parts.model, parts.opened, state_->limits()));
  return running;
}

exit_code run_over_ranks(const gang_command& command,
                         const std::function<exit_code(running_model&)>& run) {
  if (command.model.ranks == "threads") {
    auto running = start_model(command.model, command.opened, command.load);
    return running ? run(*running) : report(running.error());
  }
  const gang_flags gang;
  if (!command.called.seat) {
    return supervise({.called = command.called,
                      .model = command.model,
                      .gang = gang,
                      .seat = {.positions = command.load.positions,
                               .sequences = command.load.sequences,
                               .gang_host = {},
                               .prompt_file = command.prompt_file},
                      .one_shot = true});
  }
  const rank_parts parts{.seat = *command.called.seat,
                         .model = command.model,
                         .gang = gang,
                         .opened = command.opened,
                         .load = command.load,
                         .one_shot = true};
  if (parts.seat.rank != 0) run_worker_rank(parts);
  auto member = gang_member::join(parts);
  if (!member) end_process(report(member.error()));
  auto running = (*member)->start(parts);
  if (!running) end_process(report(running.error(), exit_code::lost_gang));
  const exit_code code = run(*running);
  end_process(code);
}

}  // namespace troupe::cli
