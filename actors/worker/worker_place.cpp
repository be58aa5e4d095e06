// The worker in its epochs: in at the leader's word, out at anybody's.
#include <fmt/format.h>

#include <utility>

#include "actors/worker/worker_machine.hpp"

namespace troupe::actors {

using namespace worker;  // NOLINT(google-build-using-namespace): the machine's own vocabulary

// Of another incarnation, or left. The leader that still asks for a left one is told so.
bool worker_machine::stale(base::epoch_id epoch) {
  const bool left = epoch.incarnation == incarnation_ && epoch.number <= left_number_;
  if (link_ == worker_link::welcomed && epoch.incarnation == incarnation_ && !left) return false;
  ++stale_dropped_;
  if (link_ == worker_link::welcomed && left) {
    say(schemas::epoch_ended{.epoch = epoch, .reason = "this rank has left it"});
  }
  return true;
}

void worker_machine::take(const schemas::prepare& message) {
  if (stale(message.epoch)) return;
  if (place_ == worker_place::out && weights_ != worker_weights::packed) {
    say(schemas::epoch_ended{.epoch = message.epoch, .reason = "this rank still loads"});
  } else if (place_ == worker_place::out) {
    place_ = worker_place::opening;
    epoch_ = message.epoch;
    left_number_ = epoch_.number - 1;
    host_busy_ = true;
    refused_since_.reset();
    refused_pause_.reset();
    resend_due_.reset();
    effects_.emplace_back(open_plane{epoch_});
  } else if (message.epoch != epoch_) {
    leave(fmt::format("the leader is at epoch {}", message.epoch.number));
  } else if (place_ == worker_place::opened) {
    say(schemas::prepared{.epoch = epoch_, .address = address_});
  }
}

void worker_machine::take(const schemas::connect& message) {
  if (stale(message.epoch) || message.epoch != epoch_) return;
  if (place_ == worker_place::serving) {
    say(schemas::connected{epoch_});
  } else if (place_ == worker_place::opened) {
    if (message.addresses.size() != static_cast<std::size_t>(options_.world_size)) {
      leave(fmt::format("the leader gave {} addresses for {} ranks", message.addresses.size(),
                        options_.world_size));
      return;
    }
    place_ = worker_place::connecting;
    host_busy_ = true;
    effects_.emplace_back(connect_plane{.epoch = epoch_, .addresses = message.addresses});
  }
}

// The end of a newer epoch is the end of this one too, whose own end got lost.
void worker_machine::take(const schemas::epoch_ended& message) {
  if (place_ != worker_place::out && message.epoch.incarnation == incarnation_ &&
      message.epoch.number >= epoch_.number) {
    leave(message.reason);
  } else {
    ++stale_dropped_;
  }
}

void worker_machine::on(const plane_opened& event) {
  if (event.epoch != epoch_) return;
  host_busy_ = false;
  if (place_ == worker_place::leaving) {
    left();
    return;
  }
  place_ = worker_place::opened;
  address_ = event.address;
  say(schemas::prepared{.epoch = epoch_, .address = address_});
}

void worker_machine::on(const plane_connected& event) {
  if (event.epoch != epoch_) return;
  host_busy_ = false;
  if (place_ == worker_place::leaving) {
    left();
    return;
  }
  place_ = worker_place::serving;
  host_busy_ = true;
  effects_.emplace_back(start_loop{epoch_});
  say(schemas::connected{epoch_});
}

void worker_machine::on(const plane_failed& event) { completed(event.epoch, event.reason); }

void worker_machine::on(const loop_ended& event) { completed(event.epoch, event.reason); }

// What the host was doing in the epoch is over, and not as it should be.
void worker_machine::completed(base::epoch_id epoch, const std::string& failure) {
  if (epoch != epoch_) return;
  host_busy_ = false;
  if (place_ == worker_place::leaving) {
    left();
  } else {
    leave(failure);
  }
}

// The host's completion, if one is outstanding, is waited for: no two epochs overlap in it.
void worker_machine::leave(const std::string& why) {
  if (place_ == worker_place::out || place_ == worker_place::leaving) return;
  place_ = worker_place::leaving;
  left_number_ = epoch_.number;
  why_leaving_ = why;
  effects_.emplace_back(abort_plane{.epoch = epoch_, .reason = why});
  if (link_ == worker_link::welcomed) say(schemas::epoch_ended{.epoch = epoch_, .reason = why});
  if (!host_busy_) left();
}

void worker_machine::left() {
  place_ = worker_place::out;
  epoch_ = {};
  say_loaded();
}

void worker_machine::on(const rank_lost& event) {
  leave(fmt::format("rank {} is lost: {}", event.rank.value, event.cause));
}

void worker_machine::on(const drain& event) {
  draining_ = true;
  drain_due_ = now_ + milliseconds(event.patience_ms);
  if (place_ != worker_place::serving) leave("this rank is draining");
}

}  // namespace troupe::actors
