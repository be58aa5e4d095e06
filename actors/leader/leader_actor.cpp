#include "actors/leader/leader_actor.hpp"

#include <utility>

namespace troupe::actors {
namespace {

// What the actor has sent itself.
struct reminders {
  bool step = false;  // one at most: more would each run a step before the mail behind them is seen
  time_point timer;
};

// What is due after each mail: a step as one more mail, so that what came meanwhile is seen first;
// a timer when none that is early enough is running.
void go_on(caf::event_based_actor* self, const leader_shell& shell, reminders* sent) {
  if (shell.wants_step() && !sent->step) {
    sent->step = true;
    self->send(self, go_on_atom::value);
  }
  const std::optional<time_point> wake = shell.wake_at();
  const time_point now = std::chrono::steady_clock::now();
  if (!wake || (sent->timer > now && sent->timer <= *wake)) return;
  sent->timer = *wake;
  self->delayed_send(self, std::max(*wake - now, std::chrono::steady_clock::duration::zero()),
                     wake_atom::value);
}

}  // namespace

caf::behavior leader_actor(caf::event_based_actor* self, leader_shell* shell) {
  auto sent = std::make_shared<reminders>();
  return {
      [=](const leader_mail_ptr& mail) {
        shell->take(std::move(*mail), std::chrono::steady_clock::now());
        go_on(self, *shell, sent.get());
      },
      [=](go_on_atom) {
        sent->step = false;
        if (shell->wants_step()) shell->run_step();
        go_on(self, *shell, sent.get());
      },
      [=](wake_atom) {
        shell->take({.event = leader_event::woke{}}, std::chrono::steady_clock::now());
        go_on(self, *shell, sent.get());
      },
  };
}

}  // namespace troupe::actors
