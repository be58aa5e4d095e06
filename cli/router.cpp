// troupe router: one OpenAI address before many gangs.
#include <fmt/format.h>
#include <poll.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <memory>

#include "base/log.hpp"
#include "base/signals.hpp"
#include "cli/bounded_file.hpp"
#include "cli/commands.hpp"
#include "cli/event_line.hpp"
#include "cli/gang_discovery.hpp"
#include "cli/http_listener.hpp"
#include "cli/yaml_config.hpp"
#include "router/router.hpp"
#include "serving/openai_server.hpp"

namespace troupe::cli {
namespace {

struct router_flags {
  discovery_options discovery;
  std::string kubernetes_api;  // empty: that of the pod
  std::string token_file;
  std::string authorities_file;
  std::string gang_namespace;
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::string api_key_file;
  std::string gang_api_key_file;
  bool open_metrics = false;
  std::string policy = "affinity";
  router::affinity_bounds affinity;
  std::string ready_path = "/ready";
  double probe_interval_s = 0.5;
  double lost_after_s = 5.0;
  double queue_timeout_s = 30.0;
  int retries = 2;
  std::size_t max_waiting = 4096;
  int drain_timeout_s = 100;
  std::string log_level = "info";
};

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(std::llround(seconds * 1e3));
}

base::result<void> resolve_kubernetes(router_flags& flags) {
  if (flags.discovery.selector.empty()) return {};
  lws::kubernetes_access access{.server = flags.kubernetes_api};
  if (access.server.empty()) {
    TROUPE_TRY(of_pod, lws::kubernetes_api::access_of_pod(std::getenv));
    access = std::move(of_pod);
  } else {
    TROUPE_TRY_VOID(net::parse_http_url(access.server));
  }
  if (!flags.token_file.empty()) access.token_file = flags.token_file;
  if (!flags.authorities_file.empty()) access.authorities_file = flags.authorities_file;
  if (!flags.gang_namespace.empty()) access.namespace_name = flags.gang_namespace;
  if (access.namespace_name.empty()) access.namespace_name = "default";
  flags.discovery.kubernetes = std::move(access);
  return {};
}

base::result<void> check(router_flags& flags) {
  const discovery_options& from = flags.discovery;
  if (from.urls.empty() && from.names.empty() && from.selector.empty()) {
    return base::fail(base::error_code::invalid_argument, "cli",
                      "no gangs: give --gang URL, --gang-dns NAME:PORT or --gang-selector LABELS");
  }
  TROUPE_TRY_VOID(gang_discovery::check(from));
  return resolve_kubernetes(flags);
}

// The first key of the file, as the gangs are sent it.
base::result<std::string> gang_authorization(const router_flags& flags) {
  if (flags.gang_api_key_file.empty()) return std::string();
  TROUPE_TRY(text, read_bounded_file("--gang-api-key-file", flags.gang_api_key_file, 1U << 20));
  const std::string key = text.substr(0, text.find_first_of(" \r\n"));
  if (!key.empty() && key.front() != '#' && key.find(':') == std::string::npos) {
    return "Bearer " + key;
  }
  return base::fail(base::error_code::invalid_argument, "cli",
                    flags.gang_api_key_file + ": its first line is not a key");
}

base::result<router::router_options> options_of(const router_flags& flags,
                                                const base::logger& log) {
  router::router_options options{.loop = std::make_shared<net::event_loop>(), .log = &log};
  TROUPE_TRY(policy, router::make_policy(flags.policy, flags.affinity));
  options.policy = std::move(policy);
  TROUPE_TRY(keys, read_api_keys(flags.api_key_file));
  options.keys = std::move(keys);
  TROUPE_TRY(authorization, gang_authorization(flags));
  options.gang_authorization = std::move(authorization);
  options.open_metrics = flags.open_metrics;
  options.retries.patience = milliseconds_of(flags.queue_timeout_s);
  options.retries.losses_max = flags.retries;
  options.probes.path = flags.ready_path;
  options.probes.interval = milliseconds_of(flags.probe_interval_s);
  options.probes.lost_after = milliseconds_of(flags.lost_after_s);
  options.waiting_max = flags.max_waiting;
  options.version = TROUPE_VERSION;
  return options;
}

// Until a signal; tells when the first gang is ready.
void wait_for_end(const router::http_router& router, base::signal_source& signals) {
  constexpr int look_ms = 50;
  for (bool told = false;;) {
    pollfd waits = {.fd = signals.descriptor(), .events = POLLIN, .revents = 0};
    if (::poll(&waits, 1, told ? -1 : look_ms) > 0 && signals.next()) return;
    if (!told && router.ready()) {
      told = true;
      print_event({{"event", "ready"}});
    }
  }
}

// A second signal ends the wait.
void drain(router::http_router& router, base::signal_source& signals, int timeout_s) {
  constexpr int look_ms = 20;
  router.drain();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(timeout_s);
  while (router.open_requests() > 0 && std::chrono::steady_clock::now() < deadline) {
    pollfd waits = {.fd = signals.descriptor(), .events = POLLIN, .revents = 0};
    if (::poll(&waits, 1, look_ms) > 0 && signals.next()) return;
  }
}

base::result<void> route(router_flags& flags) {
  constexpr std::chrono::milliseconds last_answers{2000};
  TROUPE_TRY_VOID(check(flags));
  TROUPE_TRY(level, base::parse_log_level(flags.log_level));
  TROUPE_TRY(log, base::logger::make({.role = "router", .level = level}));
  TROUPE_TRY(options, options_of(flags, log));
  base::ignore_broken_pipes();
  TROUPE_TRY(signals, base::signal_source::take({SIGTERM, SIGINT}));
  TROUPE_TRY(opened, listen_http(flags.host, flags.port, !flags.api_key_file.empty()));
  const std::shared_ptr<net::event_loop> loop = options.loop;
  TROUPE_TRY(router, router::http_router::make(std::move(options)));
  net::http_server_options http{.listening = opened.socket.get(), .handler = {}, .loop = loop};
  // Two descriptors for each request: the client's and the gang's.
  http.limits.connections_max = connections_within_limits(2 * http.limits.connections_max, log) / 2;
  http.handler = [&router = *router](net::http_request request,
                                     std::shared_ptr<net::response> response) {
    router.handle(std::move(request), std::move(response));
  };
  http.error_body = serving::openai_server::error_body;
  http.wall_clock = [] { return std::time_t{unix_time().count()}; };
  TROUPE_TRY(server, net::http_server::start(std::move(http)));
  opened.socket = {};  // the server's alone: it closes when the server stops
  router->start(*server);
  print_event({{"event", "listening"}, {"url", opened.url}});
  {
    const gang_discovery gangs(flags.discovery, log, [&](std::vector<router::gang_place> places) {
      router->set_gangs(std::move(places));
    });
    wait_for_end(*router, signals);
    log.info("ending: what is open may finish");
    drain(*router, signals, flags.drain_timeout_s);
  }
  server->stop(last_answers);
  router.reset();  // before the server, whose loop its calls are on
  return {};
}

void add_gang_flags(CLI::App& parser, router_flags& flags) {
  discovery_options& from = flags.discovery;
  parser.add_option("--gang", from.urls, "http://host:port of a gang; again for each")
      ->allow_extra_args(false);
  parser.add_option("--gang-dns", from.names, "host:port; a gang behind each address of the name")
      ->allow_extra_args(false);
  parser.add_option("--gang-selector", from.selector, "labels of the leaders' pods: a=b,c=d");
  parser.add_option("--gang-namespace", flags.gang_namespace, "of the pods [the router's own]");
  parser.add_option("--gang-port", from.pod_port, "of the pods' HTTP")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  parser.add_option("--kubernetes-api", flags.kubernetes_api, "URL of its server [the pod's]");
  parser.add_option("--kubernetes-token-file", flags.token_file, "[the pod's service account]")
      ->type_name("FILE");
  parser.add_option("--kubernetes-ca-file", flags.authorities_file, "[the pod's service account]")
      ->type_name("FILE");
  parser
      .add_option("--gang-api-key-file", flags.gang_api_key_file,
                  "its first key goes to the gangs [the client's own]")
      ->type_name("FILE");
  parser.add_option("--ready-path", flags.ready_path, "what a gang answers with 200 when ready")
      ->capture_default_str();
  parser.add_option("--probe-interval", flags.probe_interval_s, "s between two probes of a gang")
      ->check(CLI::Range(0.05, 60.0))
      ->capture_default_str();
  parser.add_option("--lost-after", flags.lost_after_s, "s without an answer to any probe")
      ->check(CLI::Range(0.1, 600.0))
      ->capture_default_str();
}

void add_client_flags(CLI::App& parser, router_flags& flags) {
  parser.add_option("--host", flags.host, "address of HTTP")->capture_default_str();
  parser.add_option("--port", flags.port, "of HTTP; 0 picks a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  parser.add_option("--api-key-file", flags.api_key_file, "one key a line, or name:sha256")
      ->type_name("FILE");
  parser.add_flag("--open-metrics", flags.open_metrics,
                  "health, readiness and metrics without a key also from other machines");
  parser.add_option("--policy", flags.policy, "how a gang is chosen: affinity, or least-tokens")
      ->check(CLI::IsMember({"affinity", "least-tokens"}))
      ->capture_default_str();
  parser
      .add_option("--load-factor", flags.affinity.load_factor,
                  "of the mean load, up to which affinity decides")
      ->check(CLI::Range(1.0, 100.0))
      ->capture_default_str();
  parser.add_option("--slack-tokens", flags.affinity.slack_tokens, "beside --load-factor")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  parser.add_option("--queue-timeout", flags.queue_timeout_s, "s that a request looks for a gang")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  parser.add_option("--max-retries", flags.retries, "of a request whose gang was lost")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  parser.add_option("--max-waiting", flags.max_waiting, "requests that wait for a gang")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  parser.add_option("--drain-timeout", flags.drain_timeout_s, "s for open requests after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  parser.add_option("--log-level", flags.log_level, "debug, info, warning, error or off")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
}

}  // namespace

command add_router(CLI::App& program) {
  auto flags = std::make_shared<router_flags>();
  CLI::App* parser = program.add_subcommand("router", "One OpenAI address before many gangs");
  add_gang_flags(*parser, *flags);
  add_client_flags(*parser, *flags);
  add_sources(*parser);
  return {parser, [flags] {
            const auto done = route(*flags);
            if (done) return exit_code::fine;
            return report(done.error(), done.error().code == base::error_code::invalid_argument
                                            ? exit_code::usage
                                            : exit_code::failed);
          }};
}

}  // namespace troupe::cli
