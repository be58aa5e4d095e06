#include "net/event_loop.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <utility>

namespace troupe::net {

namespace asio = boost::asio;

event_loop::event_loop() : io_(std::make_unique<asio::io_context>(1)) {}
event_loop::~event_loop() = default;

void event_loop::at(std::chrono::steady_clock::time_point when, std::function<void()> call) {
  auto timer = std::make_shared<asio::steady_timer>(*io_, when);
  timer->async_wait([timer, call = std::move(call)](boost::system::error_code error) {
    if (!error) call();
  });
}

void event_loop::run() {
  io_->restart();
  io_->run();
}

}  // namespace troupe::net
