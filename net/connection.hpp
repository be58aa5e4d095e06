// One connection of the server: bytes in, requests to the handler one at a time, answers out in
// order. It says what it waits for (readable, writable) and never blocks; who calls it owns the
// loop and the descriptor. The loop's thread only.
//
//   waiting -> reading -> answering -> waiting ...
//      |          |           |            a bound broken, `connection: close`, stop, a cut:
//      +----------+-----------+--> finishing (flush) -> lingering (until the client closes) ->
//      closed
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "net/answer.hpp"
#include "net/http_server.hpp"
#include "net/request_parser.hpp"

namespace troupe::net {

// Read by any thread.
struct server_totals {
  std::atomic<std::uint64_t> connections{0};
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> refused{0};
  std::atomic<std::uint64_t> cut_slow{0};
  std::atomic<std::uint64_t> bytes_sent{0};
};

// What all connections of a server share; outlives them.
struct server_context {
  http_server_options options;
  std::shared_ptr<loop_gate> gate;
  server_totals totals;
  std::size_t bodies_bytes = 0;  // of requests being read
  std::string scratch;           // received into, so that an idle connection holds no buffer
};

class connection {
 public:
  using time_point = std::chrono::steady_clock::time_point;
  struct client {
    std::uint64_t id = 0;
    int descriptor = -1;  // borrowed: non-blocking, open until closed() is true
    std::string address;
    bool loopback = false;
  };

  connection(server_context& context, client from, time_point now);
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  ~connection();

  void on_readable(time_point now);
  void on_writable(time_point now);
  void on_changed(time_point now);  // the answer has news
  void on_tick(time_point now);     // patience
  // Answers 503 whatever is asked, and ends: there are too many.
  void turn_away(time_point now);
  // Ends when nothing is open: the server stops.
  void drain(time_point now);
  void cut();

  [[nodiscard]] bool wants_read() const noexcept;
  [[nodiscard]] bool wants_write() const noexcept { return !closed() && unsent() > 0; }
  [[nodiscard]] bool closed() const noexcept { return phase_ == phase::closed; }

 private:
  enum class phase : std::uint8_t { waiting, reading, answering, finishing, lingering, closed };
  enum class ending : std::uint8_t { linger, close, reset };  // what follows finishing

  [[nodiscard]] std::size_t unsent() const noexcept { return out_.size() - sent_; }
  void advance(time_point now);
  [[nodiscard]] bool may_parse() const noexcept;
  bool read_request(time_point now);
  bool collect_answer(time_point now);
  void dispatch(time_point now);
  void count_body();
  void refuse(int status, std::string_view what, time_point now);
  void append_error(int status, std::string_view what);
  void append(std::string_view bytes, time_point now);
  void flush(time_point now);
  void finish(ending how);
  void on_flushed(time_point now);
  void on_end_of_input();
  void check_silence(time_point now);
  void close_now(bool reset);

  server_context& context_;
  const client client_;
  request_parser parser_;
  phase phase_ = phase::waiting;
  ending ending_ = ending::linger;
  bool fresh_ = true;  // no request came yet
  bool body_begun_ = false;
  bool end_of_input_ = false;
  bool answer_closes_ = false;
  bool head_only_ = false;
  bool http_1_0_ = false;
  bool inside_ = false;        // advance() is at work
  time_point since_;           // when this phase began
  time_point progress_;        // when the client last took bytes
  std::size_t counted_ = 0;    // of context.bodies_bytes
  std::size_t discarded_ = 0;  // while lingering
  std::string in_;             // received, not parsed: requests behind the one being answered
  std::string out_;
  std::size_t sent_ = 0;  // of out_
  std::shared_ptr<answer> answer_;
};

}  // namespace troupe::net
