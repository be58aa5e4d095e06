#include "actors/rank/rank_host.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "base/clock.hpp"
#include "engine/gang_executor.hpp"
#include "transport/watched.hpp"

namespace troupe::actors {
namespace {

// How long the answers that a failed device ends have to leave.
constexpr std::chrono::milliseconds last_words{100};
constexpr std::size_t segments_kept_max = 4;  // epochs come one after the other

transport::data_plane_counters sum(transport::data_plane_counters a,
                                   const transport::data_plane_counters& b) {
  a.bytes_sent += b.bytes_sent;
  a.bytes_received += b.bytes_received;
  a.stale_messages += b.stale_messages;
  return a;
}

}  // namespace

// Rank 0's executor of one epoch: owns the groups, gives the rank back when it is destroyed.
class rank_host::driven_epoch final : public engine::executor {
 public:
  driven_epoch(rank_host& host, base::epoch_id epoch, transport::rank_groups groups,
               std::shared_ptr<const std::atomic<bool>> over)
      : host_(host), epoch_(epoch), world_(std::move(groups.world)) {
    host_.worker_->join({.world = nullptr, .tp = std::move(groups.tp), .pp = std::move(groups.pp)},
                        epoch, std::move(over));
    ranks_.emplace(*host_.worker_, *world_, host_.options_.shape, epoch);
  }
  driven_epoch(const driven_epoch&) = delete;
  driven_epoch& operator=(const driven_epoch&) = delete;
  ~driven_epoch() override {
    ranks_.reset();  // says "no more plans" where the gang is whole
    host_.worker_->leave();
    world_.reset();
    host_.closed(epoch_, worker::loop_ended{epoch_, reason_});
  }

  base::result<engine::step_result> run(const engine::step_plan& plan,
                                        const engine::changes_source& following) override {
    auto result = ranks_->run(plan, following);
    if (!result) {
      reason_ = result.error().message;
      host_.end_if_device_failed(result.error());
    }
    return result;
  }
  base::epoch_id epoch() const noexcept override { return epoch_; }

 private:
  rank_host& host_;
  const base::epoch_id epoch_;
  std::unique_ptr<transport::collective> world_;
  std::optional<engine::gang_executor> ranks_;
  std::string reason_ = "the leader let go of it";
};

rank_host::rank_host(rank_host_options options, const base::logger& log)
    : options_(std::move(options)), log_(log) {}

rank_host::~rank_host() { abort(); }

void rank_host::begin(worker_post post) { post_ = std::move(post); }

void rank_host::load(const worker::load& order) {
  {
    const std::scoped_lock lock(mutex_);
    newest_load_ = order.load;
  }
  tasks_.post([this, order] { run_load(order); });
}

void rank_host::run_load(const worker::load& order) {
  const auto failed = [&](base::error error) {
    post_(worker::load_failed{order.load, std::move(error)});
  };
  {
    const std::scoped_lock lock(mutex_);
    if (order.load != newest_load_) {
      failed({base::error_code::cancelled, "another load has replaced it", "actors"});
      return;
    }
  }
  const auto path = kernels::parse_instruction_path(order.instruction_path);
  if (!path) {
    failed({base::error_code::invalid_argument,
            "no instruction path is called " + order.instruction_path, "actors"});
    return;
  }
  worker_.reset();  // before the new weights take their place
  engine::rank_worker_options engine = options_.engine;
  engine.profile.path = *path;
  engine.digest = options_.digest.get();
  engine.log = [this](const std::string& line) { log_.info(line); };
  // What is hashed beside the loading takes no step of its own; what comes after it does.
  std::uint64_t total = options_.weight_bytes_expected;
  if (engine.digest != nullptr) total += engine.digest->bytes_of_others();
  engine.progress = [this, load = order.load, total,
                     told = base::steady_now()](std::uint64_t bytes) mutable {
    if (base::steady_now() - told < std::chrono::milliseconds(500)) return;
    told = base::steady_now();
    post_(worker::load_progress{load, bytes, total});
  };
  auto loaded = engine::rank_worker::load(std::move(engine));
  if (!loaded) {
    failed(std::move(loaded).error());
    return;
  }
  if (const std::string& why = (*loaded)->why_dequantised(); !why.empty()) log_.debug(why);
  auto share = own_share();
  if (!share) {
    failed(std::move(share).error());
    return;
  }
  worker_ = *std::move(loaded);
  post_(worker::weights_loaded{order.load, *share});
}

// Of the weights that have just been loaded; on rank 0 the book is filled before it says so.
base::result<base::digest> rank_host::own_share() {
  if (!options_.digest) return base::digest{};
  const models::weight_digest& digest = *options_.digest;
  if (!digest.cache_problem().empty()) {
    log_.warning("the digests of the weights are not kept: " + digest.cache_problem());
  }
  if (options_.shares) {
    std::vector<base::digest> all;
    for (int rank = 0; rank < options_.shape.tp_size * options_.shape.pp_size; ++rank) {
      TROUPE_TRY(share, digest.share({.tp_rank = rank % options_.shape.tp_size,
                                      .tp_size = options_.shape.tp_size,
                                      .pp_rank = rank / options_.shape.tp_size,
                                      .pp_size = options_.shape.pp_size}));
      all.push_back(share);
    }
    options_.shares->fill(std::move(all), digest.root());
  }
  return digest.share(options_.engine.where);
}

void rank_host::segment_arrived(base::epoch_id epoch, base::fd segment) {
  std::unique_lock lock(mutex_);
  if (waits_for_segment_ == epoch) {
    waits_for_segment_.reset();
    lock.unlock();
    tasks_.post([this, epoch, held = std::make_shared<base::fd>(std::move(segment))] {
      run_open(epoch, std::move(*held));
    });
    return;
  }
  segments_[epoch] = std::move(segment);
  while (segments_.size() > segments_kept_max) segments_.erase(segments_.begin());
}

void rank_host::open_plane(const worker::open_plane& order) {
  base::fd segment;
  {
    const std::scoped_lock lock(mutex_);
    member_ = membership{.epoch = order.epoch, .plane = {}, .groups = {}, .busy = true};
    if (options_.needs_segment) {
      const auto found = segments_.find(order.epoch);
      if (found == segments_.end()) {
        waits_for_segment_ = order.epoch;
        return;
      }
      segment = std::move(found->second);
      segments_.erase(found);
    }
  }
  tasks_.post([this, epoch = order.epoch, held = std::make_shared<base::fd>(std::move(segment))] {
    run_open(epoch, std::move(*held));
  });
}

void rank_host::run_open(base::epoch_id epoch, base::fd segment) {
  auto plane = options_.open_plane({.epoch = epoch, .rank = options_.rank, .shape = options_.shape},
                                   std::move(segment));
  std::unique_lock lock(mutex_);
  const bool wanted = member_ && member_->epoch == epoch && !member_->aborted;
  if (!plane || !wanted) {
    lock.unlock();
    closed(epoch, worker::plane_failed{
                      epoch, plane ? "the epoch has ended meanwhile" : plane.error().message});
    return;
  }
  member_->plane = *std::move(plane);
  member_->busy = false;
  const transport::data_plane_address address = member_->plane->address();
  lock.unlock();
  post_(worker::plane_opened{epoch, address});
}

void rank_host::connect_plane(const worker::connect_plane& order) {
  {
    const std::scoped_lock lock(mutex_);
    if (member_ && member_->epoch == order.epoch) member_->busy = true;
  }
  tasks_.post([this, order] { run_connect(order); });
}

void rank_host::run_connect(const worker::connect_plane& order) {
  const auto plane = plane_of(order.epoch);
  if (!plane) {
    closed(order.epoch, worker::plane_failed{order.epoch, "the epoch has ended meanwhile"});
    return;
  }
  auto groups = plane->connect(order.addresses, options_.connect_patience);
  if (!groups) {
    closed(order.epoch, worker::plane_failed{order.epoch, groups.error().message});
    return;
  }
  transport::rank_groups connected = *std::move(groups);
  if (options_.engine.vitals != nullptr) {
    connected = transport::watch(std::move(connected), *options_.engine.vitals);
  }
  {
    const std::scoped_lock lock(mutex_);
    if (member_ && member_->epoch == order.epoch) {
      member_->groups = std::move(connected);
      member_->connected = true;
    }
  }
  post_(worker::plane_connected{order.epoch});
}

void rank_host::start_loop(const worker::start_loop& order) {
  const std::scoped_lock lock(mutex_);
  if (member_ && member_->epoch == order.epoch) member_->driven = options_.rank == 0;
  if (options_.rank != 0) tasks_.post([this, epoch = order.epoch] { run_loop(epoch); });
}

void rank_host::run_loop(base::epoch_id epoch) {
  transport::rank_groups groups;
  std::shared_ptr<const std::atomic<bool>> over;
  {
    const std::scoped_lock lock(mutex_);
    if (member_ && member_->epoch == epoch && member_->connected) {
      groups = std::move(member_->groups);
      over = member_->over;
    }
  }
  std::string reason = "the epoch has ended meanwhile";
  if (groups.world) {
    const auto world = std::move(groups.world);
    worker_->join(std::move(groups), epoch, std::move(over));
    const auto outcome = engine::follow_plans(*worker_, *world, options_.shape, epoch);
    worker_->leave();
    reason = outcome ? "the leader sends no more plans" : outcome.error().message;
    if (!outcome) end_if_device_failed(outcome.error());
  }
  closed(epoch, worker::loop_ended{epoch, reason});
}

std::unique_ptr<engine::executor> rank_host::take_epoch(base::epoch_id epoch) {
  transport::rank_groups groups;
  std::shared_ptr<const std::atomic<bool>> over;
  {
    const std::scoped_lock lock(mutex_);
    if (!member_ || member_->epoch != epoch || !member_->driven || member_->aborted) {
      return nullptr;
    }
    groups = std::move(member_->groups);
    over = member_->over;
    member_->connected = false;
  }
  return std::make_unique<driven_epoch>(*this, epoch, std::move(groups), std::move(over));
}

void rank_host::abort_plane(const worker::abort_plane& order) {
  bool never_opened = false;
  bool never_driven = false;
  std::optional<membership> unused;
  {
    const std::scoped_lock lock(mutex_);
    if (!member_ || member_->epoch != order.epoch) return;
    member_->aborted = true;
    member_->over->store(true, std::memory_order_release);
    if (member_->plane) member_->plane->abort();
    never_opened = waits_for_segment_ == order.epoch;
    if (never_opened) waits_for_segment_.reset();
    // Rank 0 was told to start and nobody has taken the epoch: its end is said here.
    never_driven = member_->driven && member_->connected;
    // Opened, and no connect came: nothing is outstanding, only the plane is to go.
    if (member_->plane && !member_->busy) unused = std::exchange(member_, std::nullopt);
  }
  if (never_opened) closed(order.epoch, worker::plane_failed{order.epoch, order.reason});
  if (never_driven) closed(order.epoch, worker::loop_ended{order.epoch, order.reason});
}

void rank_host::abort() noexcept {
  const std::scoped_lock lock(mutex_);
  if (!member_ || !member_->plane) return;
  member_->over->store(true, std::memory_order_release);
  member_->plane->abort();
}

// A device that failed in a step fails in every later one, for as long as the process lives. So the
// process ends as if it had been killed, and the supervisor starts the rank again. Rank 0 has open
// requests, which the failed step ends with an error: that still reaches the clients.
void rank_host::end_if_device_failed(const base::error& cause) {
  if (options_.engine.device == nullptr || cause.code != base::error_code::internal) return;
  if (device_failed_.exchange(true)) return;
  log_.error("the device failed, the rank is to be started anew: " + cause.message);
  if (options_.rank != 0) std::_Exit(EXIT_FAILURE);
  std::thread([] {
    std::this_thread::sleep_for(last_words);
    std::_Exit(EXIT_FAILURE);
  }).detach();
}

// The epoch is over for this rank: its plane goes, then the machine hears of it.
void rank_host::closed(base::epoch_id epoch, worker::event completion) {
  std::optional<membership> gone;
  {
    const std::scoped_lock lock(mutex_);
    if (member_ && member_->epoch == epoch) {
      if (member_->plane) counted_ = sum(counted_, member_->plane->counters());
      gone = std::exchange(member_, std::nullopt);
    }
  }
  gone.reset();  // outside the lock: a plane may take a moment to go
  post_(std::move(completion));
}

std::shared_ptr<transport::data_plane> rank_host::plane_of(base::epoch_id epoch) const {
  const std::scoped_lock lock(mutex_);
  if (!member_ || member_->epoch != epoch || member_->aborted) return nullptr;
  return member_->plane;
}

transport::data_plane_counters rank_host::counters() const {
  const std::scoped_lock lock(mutex_);
  return member_ && member_->plane ? sum(counted_, member_->plane->counters()) : counted_;
}

void rank_host::log(const worker::log& line) { log_.info(line.line); }

void rank_host::phase_changed(const worker::phase& phase) { options_.tell_phase(phase); }

void rank_host::give_up(const worker::give_up& last) { options_.end(last); }

}  // namespace troupe::actors
