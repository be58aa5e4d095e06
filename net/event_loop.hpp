// The loop that one thread turns. Who shares one (a server, and the calls to other servers that its
// handler makes) works on one thread, without locks between them.
//
// Life cycle: outlives everything that works on it. A server that is given a loop turns it on its
// own thread; else run() turns it on the caller's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace boost::asio {
class io_context;
}

namespace troupe::net {

class event_loop {
 public:
  event_loop();
  event_loop(const event_loop&) = delete;
  event_loop& operator=(const event_loop&) = delete;
  ~event_loop();

  // Runs a call at that time, soon where it is past. On the loop's thread, or before it turns.
  void at(std::chrono::steady_clock::time_point when, std::function<void()> call);
  // Returns when nothing is left to do.
  void run();

  // For the other files of this folder.
  [[nodiscard]] boost::asio::io_context& io() noexcept { return *io_; }

 private:
  std::unique_ptr<boost::asio::io_context> io_;
};

}  // namespace troupe::net
