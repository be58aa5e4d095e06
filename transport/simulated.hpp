// An in-memory network for tests: ranks are threads of which exactly one runs at a time, chosen by
// a seeded schedule, so a run depends on its seed alone and a deadlock is seen, not waited for.
//
// Each ordered pair of ranks is a link with its own queue and random delays: messages overtake each
// other between links, never within one. A rank can be lost or abort at its n-th operation. When no
// rank can go on, every call ends with error_code::internal that says so.
//
//   simulated_network network({.seed = 7, .size = 4});
//   network.run([&](std::unique_ptr<point_to_point> peers) {
//     message_collective tp(std::move(peers), epoch);
//     ...                                 // the body of rank tp.rank()
//   });
#pragma once

#include "transport/point_to_point.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace troupe::transport {

struct simulation_options {
  std::uint64_t seed = 1;
  int size = 2;
  // A message can be received 0 .. this many ticks after it was sent; each operation is a tick.
  std::uint64_t delay_ticks_max = 16;
  // A send waits until its link holds at most this many messages. 0: until its own was received,
  // the strictest transport there can be.
  std::size_t link_messages_max = 0;
  // The rank `lost_rank` is gone at its own operation number `lost_at`, counted from 0: its calls
  // and, once what it had sent is read, those that need it end with unavailable. -1: none.
  int lost_rank = -1;
  std::uint64_t lost_at = 0;
  // The same for a rank that calls abort(). -1: none.
  int aborting_rank = -1;
  std::uint64_t aborting_at = 0;
};

class simulated_network {
 public:
  // Range: size 1 .. group_size_max
  explicit simulated_network(simulation_options options);
  ~simulated_network();

  // Runs `body` once for each rank, each on its own thread, and returns when all have ended.
  // Called once. A body may keep its handle no longer than it runs.
  void run(const std::function<void(std::unique_ptr<point_to_point>)>& body);

  // Ends every wait. Any thread.
  void abort() noexcept;

  // A digest of who ran when: equal seeds and bodies give equal digests.
  [[nodiscard]] std::uint64_t schedule_digest() const;
  // Whether at some moment no rank could go on.
  [[nodiscard]] bool deadlocked() const;

  class state;  // defined in simulated.cpp

 private:
  std::shared_ptr<state> state_;
};

}  // namespace troupe::transport
