// An HTTP/1.1 server on a listening socket that somebody else holds: bounded in every input, each
// response written by whoever has its `response`, on any thread, also long after the request came.
//
// Life cycle: start() takes a duplicate of the listening socket and runs its own thread (one event
// loop); the handler runs on that thread and must not block; stop() ends within its deadline. What
// a request means is the caller's business: this folder knows no routes and no JSON.
//
//   TROUPE_TRY(server, net::http_server::start({.listening = socket, .handler = handle}));
//   void handle(net::http_request request, std::shared_ptr<net::response> response) {
//     response->send(200, {{"content-type", "text/plain"}}, "hello");
//   }
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "net/event_loop.hpp"
#include "net/http_field.hpp"

namespace troupe::net {

// Every bound has a reason; a request that breaks one is answered with the status given and the
// connection is closed.
struct http_limits {
  std::size_t header_bytes_max = 16U << 10;  // all fields together with the request line: 431
  std::size_t header_fields_max = 64;        // 431
  std::size_t target_bytes_max = 8U << 10;   // 414
  std::size_t body_bytes_max = 4U << 20;     // 413, before the body is read where it is announced
  // Bodies being read, of all connections together: 503. A body that was handed over is the
  // handler's to bound.
  std::size_t bodies_bytes_max = 256U << 20;
  // One more is answered with 503 and closed; when 128 are being turned away, the next wait in the
  // kernel's queue.
  std::size_t connections_max = 4096;
  // From the first byte: 408. A connection that never sends one is closed after it too, unanswered.
  std::chrono::milliseconds header_patience{10'000};
  std::chrono::milliseconds body_patience{30'000};  // for the whole body: 408
  std::chrono::milliseconds idle_patience{75'000};  // keep-alive
  // A response whose reader takes nothing for this long, or lets this much pile up, is cut. The one
  // body of a send() may be longer.
  std::chrono::milliseconds write_patience{30'000};
  std::size_t unsent_bytes_max = 1U << 20;
};

struct http_request {
  std::string method;  // as sent: a token, upper case by custom
  std::string target;  // path and query, as sent; the host of an absolute target is in "host"
  std::vector<header_field> headers;
  std::string body;
  std::string peer;  // numeric address of the client
  bool loopback = false;

  // The value of the first field of that name (lower case); empty when there is none.
  [[nodiscard]] std::string_view header(std::string_view name) const noexcept;
  // The target without its query.
  [[nodiscard]] std::string_view path() const noexcept;
};

// One answer. All calls may come from any thread and never block; after the client has gone they do
// nothing. Either send(), or begin() then write()... then finish(). A response that is destroyed
// unanswered becomes a 500; one destroyed in the middle of a stream cuts the connection, so that a
// client can tell it from a whole answer. Calls in another order are the caller's defect
// (TROUPE_CHECK); cut() may come at any time.
//
// A client that closes its sending side counts as gone. Fields that frame the answer (connection,
// content-length, date, transfer-encoding) are this server's: those given are left out.
class response {
 public:
  response() = default;
  response(const response&) = delete;
  response& operator=(const response&) = delete;
  virtual ~response() = default;

  virtual void send(int status, std::vector<header_field> headers, std::string body) = 0;

  // A streamed answer (chunked). Bytes of one write() leave together, in order.
  virtual void begin(int status, std::vector<header_field> headers) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void finish() = 0;
  // Ends a stream that cannot be completed: the connection is cut without the last chunk.
  virtual void cut() = 0;

  // Called once, on the server's thread, when the client has gone before the answer was complete:
  // closed, reset, too slow. At once when it has gone already (after stop(), on the caller's
  // thread: there is no other). What the call holds is let go when the answer is complete.
  virtual void on_gone(std::function<void()> call) = 0;
  [[nodiscard]] virtual bool gone() const noexcept = 0;
  // Bytes of the answer that the client's socket has not taken: who passes a stream on reads no
  // more of it while these are many.
  [[nodiscard]] virtual std::size_t unsent_bytes() const noexcept = 0;
};

struct http_server_counters {
  std::uint64_t connections = 0;  // open now
  std::uint64_t requests = 0;
  std::uint64_t refused = 0;   // by a bound or as malformed
  std::uint64_t cut_slow = 0;  // readers that were too slow
  std::uint64_t bytes_sent = 0;
};

struct http_server_options {
  int listening = -1;  // borrowed for start(); bound and listening; becomes non-blocking
  http_limits limits = {};
  // On the server's thread; what it throws is taken as an answer that never came.
  std::function<void(http_request, std::shared_ptr<response>)> handler;
  // Body of the answers this server makes itself (400, 408, 413, 414, 415, 417, 431, 500, 501, 503,
  // 505), so that they look like the application's. On the server's thread. Default: plain text.
  std::function<std::pair<std::string, std::string>(int status, std::string_view what)> error_body =
      {};  // -> {content type, body}
  // Turned by the server's thread; none: a loop of its own.
  std::shared_ptr<event_loop> loop = {};
  // For the Date field of answers; without one none is sent. Called on any thread.
  std::function<std::time_t()> wall_clock = {};
};

class http_server {
 public:
  // Errors: invalid_argument (no listening socket), resource_exhausted (threads, descriptors).
  [[nodiscard]] static base::result<std::unique_ptr<http_server>> start(
      http_server_options options);
  http_server() = default;
  http_server(const http_server&) = delete;
  http_server& operator=(const http_server&) = delete;
  virtual ~http_server() = default;  // stop(0)

  // Takes no more connections; ends idle ones, answers what is open with `connection: close`, and
  // cuts what is still open after `patience`. Returns then. Not from the server's thread.
  virtual void stop(std::chrono::milliseconds patience) = 0;
  // Runs a call on the server's thread soon; false when it has stopped.
  virtual bool post(std::function<void()> call) = 0;
  // Steady time since the loop last turned: what /health looks at.
  [[nodiscard]] virtual std::chrono::milliseconds loop_age() const noexcept = 0;
  [[nodiscard]] virtual http_server_counters counters() const noexcept = 0;
};

}  // namespace troupe::net
