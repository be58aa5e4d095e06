#include "supervisor/node_link.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/socket.hpp"

namespace troupe::supervisor {

base::result<std::unique_ptr<node_link>> node_link::make(
    node_link_options options, const std::optional<base::gang_credentials>& credentials) {
  std::optional<base::tls_context> context;
  if (credentials) {
    const auto role = options.node_rank == 0 ? base::tls_role::server : base::tls_role::client;
    TROUPE_TRY(made, base::tls_context::make(*credentials, role));
    context.emplace(std::move(made));
  }
  if (const int socket = options.listening.get(); socket >= 0) {
    ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  }
  return std::unique_ptr<node_link>(new node_link(std::move(options), std::move(context)));
}

// --- dialling -----------------------------------------------------------------------------------

void node_link::not_reached(const std::string& why) {
  connecting_.reset();
  addresses_.clear();
  events_.push_back(event::peer_not_reached{
      fmt::format("{} port {}: {}", options_.leader_host, options_.leader_port, why)});
}

void node_link::dial() {
  if (const auto started = resolving_.start(options_.leader_host); !started) {
    not_reached(started.error().message);
  }
}

void node_link::take_addresses() {
  auto found = resolving_.answer();
  if (!found) return not_reached(found.error().message);
  addresses_ = std::move(*found);
  dial_next();
}

void node_link::dial_next() {
  std::string why = "the name has no address";
  while (!addresses_.empty()) {
    connecting_to_ = addresses_.front();
    addresses_.erase(addresses_.begin());
    auto begun = base::begin_connect(connecting_to_, options_.leader_port);
    if (begun) {
      connecting_ = std::move(*begun);
      connecting_due_ = base::steady_now() + introduction_patience;
      return;
    }
    why = begun.error().message;
  }
  not_reached(why);
}

base::result<void> node_link::add(base::fd socket, bool dialled) {
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  TROUPE_TRY(stream, node_stream::make(std::move(socket), context_ ? &*context_ : nullptr));
  const connection_id id{next_id_++};
  const bool open = stream.is_open();
  connections_.emplace(id, connection{.stream = std::move(stream),
                                      .dialled = dialled,
                                      .due = base::steady_now() + introduction_patience});
  if (open && dialled) events_.push_back(event::peer_opened{id});
  turn(id);
  return {};
}

void node_link::take_stranger() {
  base::fd socket(
      ::accept4(options_.listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return;
  const auto strangers = std::count_if(connections_.begin(), connections_.end(),
                                       [](const auto& one) { return !one.second.introduced; });
  if (std::cmp_greater_equal(strangers, strangers_max)) return;
  if (const auto added = add(std::move(socket), false); !added) {
    events_.push_back(event::stranger_refused{added.error().message});
  }
}

// --- connections --------------------------------------------------------------------------------

void node_link::turn(connection_id id) {
  const auto at = connections_.find(id);
  if (at == connections_.end()) return;
  const bool was_open = at->second.stream.is_open();
  std::vector<schemas::supervisor_message> messages;
  const base::result<void> outcome = at->second.stream.turn(messages);
  if (!was_open && at->second.stream.is_open() && at->second.dialled) {
    events_.push_back(event::peer_opened{id});
  }
  for (schemas::supervisor_message& one : messages) {
    events_.push_back(event::peer_said{id, std::move(one)});
  }
  if (!outcome) drop(id, outcome.error().message);
}

void node_link::drop(connection_id id, const std::string& why) {
  const auto at = connections_.find(id);
  if (at == connections_.end()) return;
  const bool opened = at->second.stream.is_open();
  const bool dialled = at->second.dialled;
  const bool introduced = at->second.introduced;
  connections_.erase(at);
  if (dialled && !opened) {
    not_reached(why);
  } else if (dialled || introduced) {
    events_.push_back(event::peer_gone{id, why});
  } else {
    events_.push_back(event::stranger_refused{why});
    events_.push_back(event::peer_gone{id, why});  // it may be introduced by an event on its way
  }
}

void node_link::tell(connection_id id, const schemas::supervisor_message& message) {
  const auto at = connections_.find(id);
  if (at == connections_.end()) return;
  at->second.stream.queue(message);
  turn(id);
}

void node_link::accept(connection_id id) {
  const auto at = connections_.find(id);
  if (at != connections_.end()) at->second.introduced = true;
}

void node_link::close(connection_id id) { connections_.erase(id); }

void node_link::watch(poll_set& polls) {
  if (options_.listening) {
    polls.add(options_.listening.get(), POLLIN, [this](short) { take_stranger(); });
  }
  if (resolving_.descriptor() >= 0) {
    polls.add(resolving_.descriptor(), POLLIN, [this](short) { take_addresses(); });
  }
  if (connecting_) {
    polls.add(connecting_.get(), POLLOUT, [this](short) {
      const auto outcome = base::outcome_of(connecting_, connecting_to_, options_.leader_port);
      if (!outcome && addresses_.empty()) return not_reached(outcome.error().message);
      if (!outcome) return dial_next();
      addresses_.clear();
      if (const auto added = add(std::move(connecting_), true); !added) {
        not_reached(added.error().message);
      }
    });
  }
  for (const auto& [id, one] : connections_) {
    polls.add(one.stream.descriptor(), one.stream.wanted(), [this, id = id](short) { turn(id); });
  }
}

void node_link::expire(base::steady_time now) {
  if (const auto due = resolving_.due(); due && now >= *due) {
    take_addresses();
  }
  if (connecting_ && now >= connecting_due_) {
    connecting_.reset();
    if (addresses_.empty()) {
      not_reached("no answer");
    } else {
      dial_next();
    }
  }
  std::vector<connection_id> late;
  for (const auto& [id, one] : connections_) {
    if (!one.introduced && now >= one.due) late.push_back(id);
  }
  for (const connection_id id : late) {
    drop(id, fmt::format("it did not say who it is within {} ms", introduction_patience.count()));
  }
}

std::optional<base::steady_time> node_link::next_due() const {
  std::optional<base::steady_time> due = resolving_.due();
  const auto sooner = [&](base::steady_time other) {
    due = std::min(due.value_or(base::steady_time::max()), other);
  };
  if (connecting_) sooner(connecting_due_);
  for (const auto& [id, one] : connections_) {
    if (!one.introduced) sooner(one.due);
  }
  return due;
}

}  // namespace troupe::supervisor
