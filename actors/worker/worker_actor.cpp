#include "actors/worker/worker_actor.hpp"

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

// Carries one effect out.
struct performer {
  caf::stateful_actor<worker_shell>* self;
  worker_host* host;
  caf::actor dialer;

  void operator()(const worker::dial& order) const { self->send(dialer, order); }
  void operator()(const worker::hang_up& order) const { self->send(dialer, order); }
  void operator()(const worker::send& order) const {
    self->send(dialer, outgoing{schemas::encode(order.message)});
  }
  void operator()(const worker::load& order) const { host->load(order); }
  void operator()(const worker::open_plane& order) const { host->open_plane(order); }
  void operator()(const worker::connect_plane& order) const { host->connect_plane(order); }
  void operator()(const worker::start_loop& order) const { host->start_loop(order); }
  void operator()(const worker::abort_plane& order) const { host->abort_plane(order); }
  void operator()(const worker::log& line) const { host->log(line); }
  void operator()(const worker::phase& phase) const { host->phase_changed(phase); }
  void operator()(const worker::give_up& last) const {
    host->give_up(last);
    self->quit();
  }
  void operator()(const worker::wake_at& order) const {
    const auto now = self->clock().now();
    const auto pause = std::max(order.when - now, time_point::duration::zero());
    self->delayed_send(self, pause, control_wake_atom::value, ++self->state.wakes);
  }
};

}  // namespace

caf::behavior worker_actor(caf::stateful_actor<worker_shell>* self, const worker_options& options,
                           worker_host* host, caf::actor dialer) {
  self->state.machine = std::make_unique<worker_machine>(options);
  const auto step =
      [self, performs = performer{self, host, std::move(dialer)}](const worker::event& event) {
        for (const worker::effect& effect : self->state.machine->step(event, self->clock().now())) {
          std::visit(performs, effect);
        }
      };
  self->set_default_handler(caf::drop);
  return {
      [step](const worker::event& event) { step(event); },
      [self, step](control_wake_atom, std::uint64_t number) {
        if (number == self->state.wakes) step(worker::timer{});
      },
  };
}

caf::behavior dialer_actor(caf::stateful_actor<dialer_shell>* self,
                           const control_plane_options& options) {
  self->set_default_handler(caf::drop);
  return {
      [self, options](const worker::dial& order) {
        self->state.connection.reset();
        const auto worker = caf::actor_cast<caf::actor>(self->current_sender());
        const auto tell = [worker](worker::event event) {
          caf::anon_send(worker, std::move(event));
        };
        const std::uint64_t dial = order.dial;
        const auto down = [tell, dial](std::string reason) {
          tell(worker::control_down{.dial = dial, .reason = std::move(reason)});
        };
        auto opened = control_connection::open(
            options, order.host, order.port,
            {.received =
                 [tell, down, dial](const wire_bytes& bytes) {
                   auto message = schemas::decode_control_message(bytes);
                   if (message) {
                     tell(worker::received{.dial = dial, .message = std::move(*message)});
                   } else {
                     down("the leader is not understood: " + message.error().message);
                   }
                 },
             .down = down});
        if (!opened) {
          down(opened.error().message);
          return;
        }
        self->state.connection = std::move(*opened);
        tell(worker::control_up{dial});
      },
      [self](const worker::hang_up&) { self->state.connection.reset(); },
      [self](outgoing& message) {
        if (self->state.connection) self->state.connection->send(std::move(message.bytes));
      },
  };
}

}  // namespace troupe::actors
