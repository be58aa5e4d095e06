// Calls to other HTTP/1.1 servers on a loop: many at once, their answers piece by piece, over
// connections that are kept for the next call. What a proxy and a load generator are made of.
//
//   net::http_pool pool(loop, {});
//   TROUPE_TRY(call, pool.call({.peer = peer, .target = "/ready"}, {.end = on_end}));
//   call->cancel();  // closes the connection: the server sees that we left
//
// Everything on the loop's thread, or before it turns; no call blocks. Names are not looked up in
// calls.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "net/event_loop.hpp"
#include "net/http_client.hpp"
#include "net/http_field.hpp"

namespace troupe::net {

// A server: what a name was looked up to.
struct http_peer {
  std::vector<std::string> addresses;  // numeric; tried in this order
  std::uint16_t port = 0;
  std::string authority;  // the Host field; peers with equal ones share connections
};

// The peer at one numeric address.
[[nodiscard]] http_peer peer_at(const std::string& address, std::uint16_t port);

// Blocks as long as the resolver does.
// Errors: not_found (no such name), unavailable (no resolver), unimplemented (https).
[[nodiscard]] base::result<http_peer> look_up(const http_url& url);

struct http_pool_options {
  bool keep_alive = true;  // false: one connection a call
  // Kept for the next call, of each peer. Our own server closes idle ones after 75 s.
  std::size_t idle_connections_max = 256;
  std::chrono::milliseconds idle_patience{30'000};
  std::chrono::milliseconds connect_patience{2'000};  // for each address
  std::size_t head_bytes_max = 64U << 10;
};

struct pool_request {
  http_peer peer;
  std::string method = "GET";
  std::string target = "/";
  std::vector<header_field> headers = {};
  std::shared_ptr<const std::string> body = {};  // none: a request without a body
  // From the call to the answer's end; none: as long as it takes.
  std::optional<std::chrono::milliseconds> patience = {};
};

// Called on the loop's thread, never by call() itself. Each may cancel the call.
struct pool_calls {
  std::function<void(const http_reply& head)> head = {};  // without a body
  std::function<void(std::string_view bytes)> piece = {};
  // Once, last, unless cancelled. unavailable (refused, reset, ended early), deadline_exceeded,
  // resource_exhausted (the head is too long, no descriptor), data_loss (not HTTP).
  std::function<void(std::optional<base::error> error)> end = {};
};

class pool_call {
 public:
  pool_call() = default;
  pool_call(const pool_call&) = delete;
  pool_call& operator=(const pool_call&) = delete;
  virtual ~pool_call() = default;

  // Ends the call without a word and closes its connection.
  virtual void cancel() = 0;
  // Reads nothing more until resume(): the peer is held up by its own socket.
  virtual void pause() = 0;
  virtual void resume() = 0;
};

class pool_state;

class http_pool {
 public:
  http_pool(std::shared_ptr<event_loop> loop, http_pool_options options);
  http_pool(const http_pool&) = delete;
  http_pool& operator=(const http_pool&) = delete;
  ~http_pool();  // open calls go on

  // The call goes on without the handle. On a kept connection it may find that the server closes it
  // just then, as one that is idle: unavailable, without a head.
  // Errors: invalid_argument (a header, no numeric address).
  [[nodiscard]] base::result<std::shared_ptr<pool_call>> call(pool_request request,
                                                              pool_calls calls);
  // Closes what is kept for a peer that is gone.
  void forget(const std::string& authority);

 private:
  std::shared_ptr<pool_state> state_;
};

}  // namespace troupe::net
