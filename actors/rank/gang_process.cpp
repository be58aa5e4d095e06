#include "actors/rank/gang_process.hpp"

#include <future>
#include <mutex>
#include <utility>

#include "actors/rank/supervisor_link.hpp"

namespace troupe::actors {

class gang_process::state final : public gang_host {
 public:
  state(rank_host_options host, const base::logger& log, epoch_driver* driver,
        std::unique_ptr<supervisor_link> link)
      : log_(log),
        driver_(driver),
        link_(std::move(link)),
        host_(with_callbacks(std::move(host)), log) {}
  ~state() override {
    link_.reset();  // nobody is told any more
    gang_.reset();
    worker_.reset();
  }

  base::result<void> start(gang_process_options options) {
    leader_ = std::move(options.leader);
    if (driver_ != nullptr) {
      gang_runtime_options gang{.gang = std::move(options.gang),
                                .plane = options.plane,
                                .listen_host = options.listen_host,
                                .listen_port = options.listen_port};
      TROUPE_TRY(runtime, gang_runtime::start(std::move(gang), *this));
      gang_ = std::move(runtime);
      leader_ = worker::leader_at{gang_->host(), gang_->port()};
    }
    TROUPE_TRY(runtime, worker_runtime::start(
                            {.worker = std::move(options.worker), .plane = options.plane}, host_));
    worker_ = std::move(runtime);
    if (leader_) worker_->post(*leader_);
    listen();
    if (gang_) link_->send({schemas::control_plane_listens{gang_->host(), gang_->port()}});
    return {};
  }

  void end(const schemas::give_up& last) {
    const std::scoped_lock lock(end_mutex_);
    if (std::exchange(ended_, true)) return;
    end_.set_value(last);
  }
  schemas::give_up wait() {
    schemas::give_up last = end_.get_future().get();
    if (last.exit_code != 0) link_->send({last});
    return last;
  }

  void post_gang(gang::event event) {
    if (gang_) gang_->post(std::move(event));
  }
  void announce(std::string json) { link_->send({schemas::announce{std::move(json)}}); }
  gang_view view() const {
    const std::scoped_lock lock(view_mutex_);
    return view_;
  }
  const rank_host& host() const noexcept { return host_; }
  std::chrono::milliseconds silence() const noexcept { return link_->silence(); }

  // --- gang_host -------------------------------------------------------------------------------
  void begin(gang_post post) override { post_ = std::move(post); }
  void want_segment(const gang::want_segment& order) override {
    link_->send({schemas::segment_wanted{.epoch = order.epoch, .ranks = order.ranks}});
  }
  void serve(const gang::serve& order) override {
    auto ranks = host_.take_epoch(order.epoch);
    if (!ranks) {
      post_(gang::epoch_failed{order.epoch, "rank 0 has left it"});
      return;
    }
    driver_->begin_epoch(order.epoch, std::move(ranks));
  }
  void stop_serving(const gang::stop_serving& order) override {
    host_.abort();
    driver_->end_epoch(order.epoch, order.reason);
  }
  void view_changed(const gang_view& view) override {
    {
      const std::scoped_lock lock(view_mutex_);
      view_ = view;
    }
    driver_->view_changed(view);
  }
  void log(const gang::log& line) override { log_.info(line.line); }
  void give_up(const gang::give_up& last) override { end(last); }

 private:
  rank_host_options with_callbacks(rank_host_options options) {
    options.tell_phase = [this](const schemas::phase_changed& phase) { link_->send({phase}); };
    options.end = [this](const schemas::give_up& last) { end(last); };
    return options;
  }

  void listen() {
    link_->listen({.control_plane_at =
                       [this](const schemas::control_plane_at& at) {
                         if (gang_ || leader_) return;  // known already
                         if (at.port == 0) {
                           worker_->post(worker::leader_unknown{});
                         } else {
                           worker_->post(worker::leader_at{at.host, at.port});
                         }
                       },
                   .segment =
                       [this](base::epoch_id epoch, base::fd descriptor) {
                         host_.segment_arrived(epoch, std::move(descriptor));
                         post_gang(gang::segment_ready{epoch});
                       },
                   .rank_lost =
                       [this](const schemas::rank_lost& lost) {
                         host_.abort();  // first: every wait ends now
                         post_gang(lost);
                         worker_->post(lost);
                       },
                   .drain =
                       [this](const schemas::drain& order) {
                         // First: a driver without open requests says "drained" at once, which
                         // means nothing to a gang that has not heard of it.
                         post_gang(order);
                         worker_->post(order);
                         if (driver_ != nullptr) {
                           driver_->drain(std::chrono::milliseconds(order.patience_ms));
                         }
                       },
                   .gone = [this] { end({.exit_code = 1, .reason = "the supervisor has gone"}); }});
  }

  const base::logger& log_;
  epoch_driver* const driver_;
  std::unique_ptr<supervisor_link> link_;
  rank_host host_;
  std::optional<worker::leader_at> leader_;
  gang_post post_;
  std::unique_ptr<gang_runtime> gang_;
  std::unique_ptr<worker_runtime> worker_;
  mutable std::mutex view_mutex_;
  gang_view view_;
  std::mutex end_mutex_;
  bool ended_ = false;
  std::promise<schemas::give_up> end_;
};

gang_process::gang_process(std::unique_ptr<state> made) : state_(std::move(made)) {}
gang_process::~gang_process() = default;

base::result<std::unique_ptr<gang_process>> gang_process::start(gang_process_options options,
                                                                const base::logger& log,
                                                                epoch_driver* driver) {
  TROUPE_TRY(link, supervisor_link::make(std::move(options.channel)));
  auto made = std::make_unique<state>(std::move(options.host), log, driver, std::move(link));
  state& running = *made;
  std::unique_ptr<gang_process> process(new gang_process(std::move(made)));
  if (driver != nullptr) driver->attach(*process);
  TROUPE_TRY_VOID(running.start(std::move(options)));
  return process;
}

schemas::give_up gang_process::wait() { return state_->wait(); }
void gang_process::canary_done(base::epoch_id epoch) {
  state_->post_gang(gang::canary_done{epoch});
}
void gang_process::epoch_failed(base::epoch_id epoch, const std::string& reason) {
  state_->post_gang(gang::epoch_failed{epoch, reason});
}
void gang_process::drained() { state_->post_gang(gang::drained{}); }
void gang_process::end(const schemas::give_up& last) { state_->end(last); }
void gang_process::announce(std::string json) { state_->announce(std::move(json)); }
gang_view gang_process::view() const { return state_->view(); }
transport::data_plane_counters gang_process::counters() const { return state_->host().counters(); }
std::chrono::milliseconds gang_process::supervisor_silence() const noexcept {
  return state_->silence();
}

}  // namespace troupe::actors
