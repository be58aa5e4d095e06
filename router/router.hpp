// One OpenAI address before many gangs: each request goes to one that is ready, by a policy; its
// answer comes back as it is. Knows no model and no token; what a request is answered is its
// gang's.
//
// Life cycle: make() on a loop, start() with the HTTP server that turns that loop and has handle()
// as its handler. At the end drain(), http_server::stop(), then destroy this, then the server.
// Threads: set_gangs(), drain(), open_requests() and ready() from any; the rest on the
// loop's.
//
//   auto router = router::http_router::make({.loop = loop, .policy = ..., .log = &log});
//   TROUPE_TRY(http, net::http_server::start({.listening = socket, .handler = ..., .loop = loop}));
//   router->start(*http);
//   router->set_gangs(places);          // and whenever discovery says otherwise
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "net/event_loop.hpp"
#include "net/http_server.hpp"
#include "router/gang_prober.hpp"
#include "router/gang_table.hpp"
#include "router/proxied_request.hpp"
#include "router/routing_policy.hpp"
#include "serving/api_keys.hpp"

namespace troupe::router {

struct router_options {
  std::shared_ptr<net::event_loop> loop;
  std::unique_ptr<routing_policy> policy = {};
  const base::logger* log = nullptr;  // outlives the router
  serving::api_keys keys = {};        // of clients; none: open to everybody who reaches the port
  // "Bearer KEY" for the gangs, in place of the client's; empty: the client's is passed on.
  std::string gang_authorization = {};
  bool open_metrics = false;  // /health, /ready, /metrics without a key also from elsewhere
  retry_bounds retries = {};
  probe_bounds probes = {};
  traits_limits traits = {};
  std::size_t waiting_max = 4096;  // requests that wait for a gang; more are refused with 503
  // Of all open requests together, which are kept to be tried again: more are refused with 503.
  std::size_t bodies_bytes_max = std::size_t{256} << 20;
  std::string version = "0.1.0";
};

class http_router {
 public:
  // Errors: invalid_argument (a part is missing).
  [[nodiscard]] static base::result<std::unique_ptr<http_router>> make(router_options options);
  http_router(const http_router&) = delete;
  http_router& operator=(const http_router&) = delete;
  ~http_router();

  void start(net::http_server& server);
  void handle(net::http_request request, std::shared_ptr<net::response> response);
  void set_gangs(std::vector<gang_place> places);
  // /ready answers 503 from now on, and so does every new request; what is open ends in peace.
  void drain();
  [[nodiscard]] std::size_t open_requests() const noexcept;
  // Some gang takes requests.
  [[nodiscard]] bool ready() const noexcept;

 private:
  class impl;
  explicit http_router(std::unique_ptr<impl> made);
  std::unique_ptr<impl> impl_;
};

}  // namespace troupe::router
