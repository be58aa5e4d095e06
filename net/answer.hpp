// One answer between the threads that write it and the connection that sends it. The writers'
// calls only fill a buffer under a short lock and ring the loop once; the connection takes what has
// piled up, so that many small writes leave in one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "net/http_server.hpp"
#include "net/http_syntax.hpp"

namespace troupe::net {

// The way from any thread to the server's; outlives the server as long as somebody has an answer.
class loop_gate {
 public:
  loop_gate() = default;
  loop_gate(const loop_gate&) = delete;
  loop_gate& operator=(const loop_gate&) = delete;
  virtual ~loop_gate() = default;

  // The loop looks at this connection's answer soon; nothing when the loop has ended.
  virtual void changed(std::uint64_t connection) = 0;
  // False when the loop has ended and the call will not run.
  virtual bool post(std::function<void()> call) = 0;
  [[nodiscard]] virtual bool stopping() const noexcept = 0;
  // For the Date field; none when the server was given no wall clock.
  [[nodiscard]] virtual std::optional<std::time_t> date() const = 0;
};

struct answer_terms {
  std::uint64_t connection = 0;
  bool head_only = false;  // the request was HEAD
  bool http_1_0 = false;   // the client knows no chunks
  bool close = false;      // the connection ends after this answer
  std::size_t unsent_bytes_max = 0;
};

class answer {
 public:
  answer(std::shared_ptr<loop_gate> gate, answer_terms terms)
      : gate_(std::move(gate)), terms_(terms) {}

  // --- what a response does, on any thread ---
  void send(int status, const std::vector<header_field>& headers, const std::string& body);
  void begin(int status, const std::vector<header_field>& headers);
  void write(const std::string& bytes);
  void finish();
  void cut();
  void abandon();  // the response was destroyed
  void on_gone(std::function<void()> call);
  [[nodiscard]] std::size_t unsent_bytes();
  [[nodiscard]] bool gone() const noexcept { return gone_.load(std::memory_order_acquire); }

  // --- the connection's side, on the server's thread ---
  struct portion {
    bool complete = false;   // nothing more comes
    bool cut = false;        // it ends short
    bool abandoned = false;  // it never began
    bool overflow = false;   // the reader let too much pile up
  };
  // Moves what waits to the end of `out`, of which `sent` bytes have left already.
  portion take(std::string& out, std::size_t sent);
  // Bytes that take() gave and the kernel has not taken yet.
  void set_outgoing(std::size_t bytes) noexcept {
    outgoing_.store(bytes, std::memory_order_relaxed);
  }
  // The client has gone: calls what on_gone() left.
  void lose();

 private:
  enum class state : std::uint8_t { unanswered, streaming, complete, cut, abandoned };

  [[nodiscard]] bool bodyless(int status) const noexcept;
  // Ends the answer in that state; releases the lock.
  void end(std::unique_lock<std::mutex> lock, state last);
  // Releases the lock and rings the loop, unless it was rung and has not come yet.
  void ring(std::unique_lock<std::mutex> lock);

  const std::shared_ptr<loop_gate> gate_;
  const answer_terms terms_;
  std::mutex mutex_;
  state state_ = state::unanswered;
  bool body_dropped_ = false;  // a stream whose body may not be sent
  bool rung_ = true;           // the connection looks when the handler has returned
  bool overflow_ = false;
  bool lost_ = false;  // lose() has been here
  std::string waiting_;
  std::function<void()> gone_call_;
  std::atomic<std::size_t> outgoing_{0};
  std::atomic<bool> gone_{false};
};

// What the handler gets: the answer, abandoned when the last owner lets it go.
[[nodiscard]] std::shared_ptr<response> make_response(std::shared_ptr<answer> target);

}  // namespace troupe::net
