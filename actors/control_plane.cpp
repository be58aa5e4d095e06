#include "actors/control_plane.hpp"

#include <fmt/format.h>

#include <caf/io/all.hpp>
#include <caf/openssl/all.hpp>
#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "actors/control_probe.hpp"
#include "actors/resolve.hpp"
#include "base/tls.hpp"

namespace troupe::actors {

namespace {

constexpr std::size_t credential_bytes_max = 64U << 10;

base::result<std::string> read_credential(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(credential_bytes_max + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.empty() || text.size() > credential_bytes_max) {
    return base::fail(base::error_code::failed_precondition, "actors",
                      fmt::format("{}: cannot be read as a certificate or key file", path));
  }
  return text;
}

// Without a deadline the framework would wait for ever for a peer that says nothing.
base::result<caf::actor> reach(caf::actor_system& system, const std::string& host,
                               std::uint16_t port, std::chrono::milliseconds patience) {
  std::string failure;
  caf::actor leader;
  caf::scoped_actor self(system);
  self->request(system.openssl_manager().actor_handle(), caf::duration(patience),
                caf::connect_atom::value, host, port)
      .receive([&](const caf::node_id&, caf::strong_actor_ptr& found,
                   const std::set<std::string>&) { leader = caf::actor_cast<caf::actor>(found); },
               [&](const caf::error& error) { failure = system.render(error); });
  if (leader) return leader;
  if (failure.empty()) failure = "nothing is published there";
  return base::fail(base::error_code::unavailable, "actors",
                    fmt::format("{}:{} does not let this rank in: {}", host, port, failure), true);
}

base::result<std::string> reachable_address(const control_plane_options& options,
                                            const std::string& host, std::uint16_t port) {
  TROUPE_TRY(credentials, read_credentials(options));
  TROUPE_TRY(context, base::tls_context::make(credentials, base::tls_role::client));
  TROUPE_TRY(addresses, resolve_within(host, options.dial_patience));
  std::optional<base::error> last;
  for (const std::string& address : addresses) {
    auto probed = probe_member(context, address, port, options.dial_patience);
    if (probed) return address;
    last = probed.error();
  }
  if (last) return tl::unexpected(*std::move(last));
  return base::fail(base::error_code::not_found, "actors",
                    fmt::format("{} has no address yet", host), true);
}

}  // namespace

control_plane_config::control_plane_config() {
  set("scheduler.max-threads", size_t{1});
  set("logger.console", caf::atom("NONE"));
}

control_plane_config::control_plane_config(const control_plane_options& options)
    : control_plane_config() {
  load<caf::io::middleman>();
  load<caf::openssl::manager>();
  add_message_type<wire_bytes>("troupe_control");
  openssl_certificate = options.certificate_path;
  openssl_key = options.key_path;
  openssl_cafile = options.authority_path;
  // Integers here would leave both off without a word.
  set("middleman.heartbeat-interval", caf::timespan(options.heartbeat_interval));
  set("middleman.connection-timeout", caf::timespan(options.silence_max));
  set("middleman.workers", size_t{0});  // messages are small: the socket's thread decodes them
}

base::result<base::gang_credentials> read_credentials(const control_plane_options& options) {
  TROUPE_TRY(certificate, read_credential(options.certificate_path));
  TROUPE_TRY(key, read_credential(options.key_path));
  TROUPE_TRY(authority, read_credential(options.authority_path));
  base::gang_credentials texts{.certificate = certificate, .key = key, .authority = authority};
  TROUPE_TRY(context, base::tls_context::make(texts, base::tls_role::server));
  static_cast<void>(context);
  return texts;
}

base::result<std::uint16_t> publish_control(const caf::actor& whom, const std::string& numeric_host,
                                            std::uint16_t port) {
  const auto got = caf::openssl::publish(whom, port, numeric_host.c_str(), true);
  if (got) return *got;
  return base::fail(base::error_code::unavailable, "actors",
                    fmt::format("the control plane cannot listen on {}:{}: {}; is another leader "
                                "running there?",
                                numeric_host, port, whom.home_system().render(got.error())));
}

// --- the worker's end ---------------------------------------------------------------------------

caf::behavior control_link(caf::event_based_actor* self, caf::actor leader,
                           std::shared_ptr<const control_callbacks> callbacks) {
  const auto over = [self, callbacks](const std::string& reason) {
    callbacks->down(reason);
    self->quit();
  };
  self->monitor(leader);
  self->set_down_handler([over](const caf::down_msg&) { over("the connection is lost"); });
  self->set_exit_handler([over](const caf::exit_msg&) { over("the leader has hung up"); });
  self->set_error_handler([](const caf::error&) {});  // an answer that nobody asked for
  self->set_default_handler(caf::drop);
  return {
      [self, leader](outgoing& message) { self->send(leader, std::move(message.bytes)); },
      [self, leader, callbacks](wire_bytes& bytes) {
        if (self->current_sender() == leader) callbacks->received(std::move(bytes));
      },
  };
}

control_connection::control_connection(const control_plane_options& options)
    : config_(options), system_(config_) {}

control_connection::~control_connection() {
  // Not exit_msg: the link's handler would take it for the leader's.
  if (link_) caf::anon_send_exit(link_, caf::exit_reason::kill);
}

base::result<std::unique_ptr<control_connection>> control_connection::open(
    const control_plane_options& options, const std::string& host, std::uint16_t port,
    control_callbacks callbacks) {
  TROUPE_TRY(address, reachable_address(options, host, port));
  std::unique_ptr<control_connection> made(new control_connection(options));
  TROUPE_TRY(leader, reach(made->system_, address, port, options.dial_patience));
  made->link_ =
      made->system_.spawn(control_link, std::move(leader),
                          std::make_shared<const control_callbacks>(std::move(callbacks)));
  return made;
}

void control_connection::send(wire_bytes bytes) {
  caf::anon_send(link_, outgoing{std::move(bytes)});
}

}  // namespace troupe::actors
