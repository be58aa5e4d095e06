// One request on its way: to a gang, to another while the client has seen nothing of an answer, and
// the answer back. On the loop's thread.
//
//   waiting (no gang takes it) <-> asking (sent, nothing for the client yet) -> passing -> ended
//
// The client gets the answer's head with its first token. Until then a gang that is lost, refuses
// with 503, or ends the stream with an error that a retry mends is left for another one.
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

#include "net/http_pool.hpp"
#include "net/http_server.hpp"
#include "router/gang_table.hpp"
#include "router/stream_opening.hpp"

namespace troupe::router {

struct retry_bounds {
  // From its arrival, and again from each time it was lost: how long a request looks for a gang.
  std::chrono::milliseconds patience{30'000};
  // A gang that refused is asked again after this, when no other is left.
  std::chrono::milliseconds pause{100};
  // Gangs may be lost under a request so often; one more time, and it may be the request that kills
  // them.
  int losses_max = 2;
  // Of an answer in one piece; longer ones are passed on as they come.
  std::size_t held_bytes_max = std::size_t{256} << 10;
  // Read from a gang and not taken by the client: no more is read then.
  std::size_t backlog_bytes_max = std::size_t{128} << 10;
};

struct router_counters {
  std::uint64_t retries = 0;
  std::uint64_t gave_up = 0;      // no gang in time, or lost too often
  std::uint64_t cut_streams = 0;  // lost after the first token
  std::uint64_t cancelled = 0;    // by the client
};

class proxied_request;

// What a request needs of its router, which outlives it.
class request_host {
 public:
  request_host() = default;
  request_host(const request_host&) = delete;
  request_host& operator=(const request_host&) = delete;
  virtual ~request_host() = default;

  [[nodiscard]] virtual std::shared_ptr<gang> choose(
      const request_traits& request, const std::vector<std::shared_ptr<gang>>& tried) = 0;
  // It did not answer as a gang should that is ready: it is asked before it gets more.
  virtual void suspect(gang& of, const std::string& why) = 0;
  // Calls look_for_gang() when a gang becomes ready. False: too many wait.
  [[nodiscard]] virtual bool wait_for_gang(const std::shared_ptr<proxied_request>& one) = 0;
  virtual void ended(proxied_request& one) = 0;
  virtual net::http_pool& pool() = 0;
  virtual router_counters& counters() = 0;
  [[nodiscard]] virtual const retry_bounds& bounds() const = 0;
};

struct client_request {
  std::string method;
  std::string target;
  std::vector<net::header_field> headers;  // for the gang
  std::shared_ptr<const std::string> body;
  request_traits traits;
  std::shared_ptr<net::response> response;
};

class proxied_request : public std::enable_shared_from_this<proxied_request> {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  proxied_request(request_host& host, client_request request, time_point now);
  proxied_request(const proxied_request&) = delete;
  proxied_request& operator=(const proxied_request&) = delete;
  ~proxied_request() = default;

  void look_for_gang();
  // The gang that has this request answers nothing any more.
  void gang_lost(const std::string& why);
  // Patience, and readers that catch up. Called again and again.
  void on_tick(time_point now);
  // The client has gone, or the router ends.
  void leave();

  [[nodiscard]] const gang* at() const noexcept { return gang_.get(); }
  [[nodiscard]] std::size_t body_bytes() const noexcept {
    return request_.body ? request_.body->size() : 0;
  }

 private:
  enum class phase : std::uint8_t { waiting, asking, passing, ended };

  void ask(const std::shared_ptr<gang>& chosen);
  void on_head(const net::http_reply& head);
  void on_piece(std::string_view bytes);
  void on_end(const std::optional<base::error>& error);
  void pass_on(std::string bytes);
  void answer_whole();
  void refused(const std::string& why);
  void lost(const std::string& why);
  void try_another();
  void give_up(const std::string& why);
  void break_stream(const std::string& why);
  void leave_gang();
  void count_tokens(std::string_view bytes);
  void end();

  request_host& host_;
  const client_request request_;
  phase phase_ = phase::waiting;
  std::shared_ptr<gang> gang_;  // asked now
  std::shared_ptr<net::pool_call> call_;
  std::vector<std::shared_ptr<gang>> tried_;  // since the last pause
  time_point deadline_;                       // of looking for a gang
  std::optional<time_point> ask_again_at_;
  int losses_ = 0;
  std::int64_t tokens_left_ = 0;  // of the gang's outstanding tokens, this request's
  // Of the answer that is coming.
  net::http_reply head_;
  bool events_ = false;
  stream_opening opening_;
  std::string held_;
  bool paused_ = false;
};

}  // namespace troupe::router
