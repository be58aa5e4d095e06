#include "actors/gang/gang_actor.hpp"

#include <algorithm>
#include <utility>

namespace troupe::actors {

namespace {

using gang_self = caf::stateful_actor<gang_shell>*;

// Carries one effect out.
struct performer {
  gang_self self;
  gang_host* host;

  void operator()(const gang::send& order) const {
    const auto at = self->state.addresses.find(order.connection);
    if (at == self->state.addresses.end()) return;
    self->send(self->state.peers.at(at->second).link, schemas::encode(order.message));
  }
  void operator()(const gang::drop& order) const {
    const auto at = self->state.addresses.find(order.connection);
    if (at == self->state.addresses.end()) return;
    gang_peer& peer = self->state.peers.at(at->second);
    peer.dropped = true;
    self->send_exit(peer.link, caf::exit_reason::user_shutdown);
  }
  void operator()(const gang::want_segment& order) const { host->want_segment(order); }
  void operator()(const gang::serve& order) const { host->serve(order); }
  void operator()(const gang::stop_serving& order) const { host->stop_serving(order); }
  void operator()(const gang::log& line) const { host->log(line); }
  void operator()(const gang::give_up& last) const {
    host->give_up(last);
    self->quit();
  }
  void operator()(const gang::wake_at& order) const {
    const auto now = self->clock().now();
    const auto pause = std::max(order.when - now, time_point::duration::zero());
    self->delayed_send(self, pause, control_wake_atom::value, ++self->state.wakes);
  }
};

void step(gang_self self, gang_host* host, const gang::event& event) {
  const auto effects = self->state.machine->step(event, self->clock().now());
  host->view_changed(self->state.machine->view());
  for (const gang::effect& effect : effects) std::visit(performer{self, host}, effect);
}

gang_peer& peer_of(gang_self self, const caf::actor& link) {
  const auto [at, is_new] = self->state.peers.try_emplace(link.address());
  if (is_new) {
    at->second = {.id = {++self->state.connections}, .link = link, .dropped = false};
    self->state.addresses.emplace(at->second.id, at->first);
    self->monitor(link);
  }
  return at->second;
}

void forget(gang_self self, gang_host* host, const caf::actor_addr& address) {
  const auto at = self->state.peers.find(address);
  if (at == self->state.peers.end()) return;
  const gang_peer peer = at->second;
  self->state.addresses.erase(peer.id);
  self->state.peers.erase(at);
  if (!peer.dropped) {
    step(self, host,
         gang::connection_down{.connection = peer.id, .reason = "the connection is lost"});
  }
}

void take(gang_self self, gang_host* host, const wire_bytes& bytes) {
  const auto link = caf::actor_cast<caf::actor>(self->current_sender());
  if (!link) return;
  const gang_peer& peer = peer_of(self, link);
  if (peer.dropped) return;
  auto message = schemas::decode_control_message(bytes);
  if (message) {
    step(self, host, gang::received{.connection = peer.id, .message = std::move(*message)});
    return;
  }
  host->log({"gang: a member is not understood and dropped: " + message.error().message});
  const connection_id id = peer.id;
  performer{self, host}(gang::drop{id});
  step(self, host, gang::connection_down{.connection = id, .reason = "it was not understood"});
}

}  // namespace

caf::behavior gang_actor(gang_self self, const gang_options& options, gang_host* host) {
  self->state.machine = std::make_unique<gang_machine>(options);
  self->set_default_handler(caf::drop);
  self->set_error_handler([](caf::error&) {});    // an answer that nobody asked for
  self->set_exit_handler([](caf::exit_msg&) {});  // no peer ends the gang; the runtime kills
  self->set_down_handler(
      [self, host](const caf::down_msg& down) { forget(self, host, down.source); });
  return {
      [self, host](const gang::event& event) { step(self, host, event); },
      [self, host](const wire_bytes& bytes) { take(self, host, bytes); },
      [self, host](control_wake_atom, std::uint64_t number) {
        if (number == self->state.wakes) step(self, host, gang::timer{});
      },
  };
}

}  // namespace troupe::actors
