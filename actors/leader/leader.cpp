#include "actors/leader/leader.hpp"

#include <caf/all.hpp>
#include <utility>

#include "actors/leader/leader_actor.hpp"
#include "engine/admission.hpp"

namespace troupe::actors {
namespace {

// One actor on a thread of its own: the scheduler's workers have nothing to do.
struct leader_system_config : caf::actor_system_config {
  leader_system_config() {
    set("scheduler.max-threads", size_t{1});
    set("logger.console", caf::atom("NONE"));
  }
};

}  // namespace

class leader::impl {
 public:
  impl(leader_parts parts, leader_callbacks callbacks)
      : limits_(parts.engine.limits()),
        sequences_max_(parts.engine.max_queued_seqs),
        blocks_(parts.engine.planner.blocks_per_group),
        describe_(callbacks.describe),
        figures_(std::make_shared<leader_figures>()),
        shell_(std::move(parts), std::move(callbacks), figures_),
        system_(config_),
        actor_(system_.spawn<caf::detached>(leader_actor, &shell_)) {}
  impl(const impl&) = delete;
  impl& operator=(const impl&) = delete;
  ~impl() {
    caf::anon_send_exit(actor_, caf::exit_reason::user_shutdown);
    actor_ = nullptr;
    system_.await_all_actors_done();
  }

  void post(leader_mail mail) {
    caf::anon_send(actor_, std::make_shared<leader_mail>(std::move(mail)));
  }

  base::result<base::request_id> submit(completion_request request,
                                        std::shared_ptr<completion_sink> sink) {
    if (request.choices < 1) {
      return base::fail(base::error_code::invalid_argument, "actors", "n is 0, allowed: 1 or more");
    }
    const schemas::sequence_log log{.params = request.params, .prompt_ids = request.prompt_ids};
    TROUPE_TRY_VOID(engine::check_admission(log, limits_));
    TROUPE_TRY_VOID(check_ready());
    const auto sequences = static_cast<std::int64_t>(request.choices);
    if (figures_->open_sequences.fetch_add(sequences) + sequences > sequences_max_) {
      figures_->open_sequences -= sequences;
      return base::fail(base::error_code::resource_exhausted, "actors",
                        "the queue is full: " + std::to_string(sequences_max_) +
                            " sequences are waiting or running; try again in a moment",
                        true);
    }
    const base::request_id id{next_id_.fetch_add(1)};
    post({.event = leader_event::submitted{id, std::move(request)}, .sink = std::move(sink)});
    return id;
  }

  void cancel(base::request_id id) {
    post({.event = leader_event::cancelled{id}, .steps_begun = figures_->steps_begun});
  }

  gang_status status() const {
    gang_status status;
    status.ready = is_ready();
    status.draining = figures_->draining;
    status.steps = figures_->steps;
    status.prompt_tokens = figures_->prompt_tokens;
    status.prefill_tokens_computed = figures_->prefill_tokens;
    status.generation_tokens = figures_->generation_tokens;
    status.preemptions = figures_->preemptions;
    status.prefix_tokens_queried = figures_->prefix_tokens_queried;
    status.prefix_tokens_hit = figures_->prefix_tokens_hit;
    status.cancelled = figures_->cancelled;
    status.carried = figures_->carried;
    status.steps_after_cancel = figures_->steps_after_cancel;
    status.stale_dropped = figures_->stale_dropped;
    status.running = figures_->running;
    status.waiting = std::max<std::int64_t>(0, figures_->open_sequences - figures_->running);
    status.kv_blocks_total = blocks_;
    status.kv_blocks_free = figures_->blocks_free;
    if (describe_) describe_(status);
    return status;
  }

 private:
  [[nodiscard]] bool is_ready() const {
    return figures_->ready_until_ns >= std::chrono::steady_clock::now().time_since_epoch().count();
  }

  [[nodiscard]] base::result<void> check_ready() const {
    if (figures_->draining) {
      return base::fail(base::error_code::unavailable, "actors",
                        "this server is shutting down; send the request elsewhere", true);
    }
    if (!is_ready()) {
      return base::fail(base::error_code::unavailable, "actors",
                        "the gang is not ready; send the request again in a moment", true);
    }
    return {};
  }

  const engine::admission_limits limits_;
  const std::int64_t sequences_max_;
  const std::int64_t blocks_;
  const std::function<void(gang_status&)> describe_;
  const std::shared_ptr<leader_figures> figures_;
  std::atomic<std::uint64_t> next_id_{canary_request.value + 1};
  leader_shell shell_;
  leader_system_config config_;
  caf::actor_system system_;
  caf::actor actor_;
};

leader::leader(std::unique_ptr<impl> made) : impl_(std::move(made)) {}
leader::~leader() = default;

std::unique_ptr<leader> leader::start(leader_parts parts, leader_callbacks callbacks) {
  return std::unique_ptr<leader>(
      new leader(std::make_unique<impl>(std::move(parts), std::move(callbacks))));
}

void leader::begin_epoch(base::epoch_id epoch, std::unique_ptr<engine::executor> ranks,
                         std::string numerics) {
  impl_->post(
      {.event = leader_event::epoch_began{epoch, std::move(numerics)}, .ranks = std::move(ranks)});
}

void leader::end_epoch(base::epoch_id epoch, std::string reason) {
  impl_->post({.event = leader_event::epoch_ended{epoch, std::move(reason), {}}});
}

void leader::drain() { impl_->post({.event = leader_event::drain{}}); }

base::result<base::request_id> leader::submit(completion_request request,
                                              std::shared_ptr<completion_sink> sink) {
  return impl_->submit(std::move(request), std::move(sink));
}

void leader::cancel(base::request_id id) { impl_->cancel(id); }

void leader::finish_choice(base::request_id id, std::uint32_t choice) {
  impl_->post({.event = leader_event::choice_satisfied{{id, choice}}});
}

gang_status leader::status() const { return impl_->status(); }

const char* to_string(rank_state state) noexcept {
  switch (state) {
    case rank_state::absent:
      return "absent";
    case rank_state::loading:
      return "loading";
    case rank_state::waiting:
      return "waiting";
    case rank_state::connecting:
      return "connecting";
    case rank_state::serving:
      return "serving";
  }
  return "unknown";
}

}  // namespace troupe::actors
