// What people see of a worker: its phase, one line about it.
#include <fmt/format.h>

#include "actors/worker/worker_machine.hpp"

namespace troupe::actors {

schemas::rank_phase worker_machine::phase() const {
  if (draining_) return schemas::rank_phase::draining;
  if (place_ == worker_place::serving) return schemas::rank_phase::serving;
  if (place_ != worker_place::out) return schemas::rank_phase::connecting;
  if (link_ != worker_link::welcomed) return schemas::rank_phase::seeking_leader;
  if (weights_ != worker_weights::packed) return schemas::rank_phase::loading;
  return schemas::rank_phase::waiting_for_ranks;
}

std::string worker_machine::detail() const {
  const auto gigabytes = [](std::uint64_t bytes) { return static_cast<double>(bytes) * 1e-9; };
  switch (phase()) {
    case schemas::rank_phase::draining:
      return "ends what is open";
    case schemas::rank_phase::serving:
      return fmt::format("serves in epoch {}", epoch_.number);
    case schemas::rank_phase::connecting:
      if (place_ == worker_place::leaving) {
        return fmt::format("leaves epoch {}: {}", epoch_.number, why_leaving_);
      }
      return fmt::format("connects to the other ranks for epoch {}", epoch_.number);
    case schemas::rank_phase::loading:
      return fmt::format("loads its weights for {}: {:.1f} of {:.1f} GB", path_,
                         gigabytes(progress_.bytes), gigabytes(progress_.total_bytes));
    case schemas::rank_phase::waiting_for_ranks:
      return "waits for the other ranks";
    default:
      break;
  }
  if (link_ == worker_link::refused) return "is refused, asks again: " + refusal_;
  if (!leader_) return "waits to be told where the leader is: " + why_seeking_;
  return fmt::format("looks for the leader at {}:{}: {}", leader_->host, leader_->port,
                     why_seeking_);
}

// A line when the phase changes and when another refusal comes, and again while it does not serve.
void worker_machine::show() {
  const bool serving = phase() == schemas::rank_phase::serving;
  schemas::phase_changed now_is{
      .phase = phase(), .epoch = serving ? epoch_ : base::epoch_id{}, .detail = detail()};
  const bool same = shown_ && shown_->phase == now_is.phase && shown_->epoch == now_is.epoch &&
                    (link_ != worker_link::refused || shown_->detail == now_is.detail);
  if (same && (!say_due_ || now_ < *say_due_)) return;
  say_due_.reset();
  if (!serving) say_due_ = now_ + worker_times::say_every;
  effects_.emplace_back(
      worker::log{fmt::format("rank {} {}", options_.self.rank.value, now_is.detail)});
  effects_.emplace_back(now_is);
  shown_ = std::move(now_is);
}

}  // namespace troupe::actors
