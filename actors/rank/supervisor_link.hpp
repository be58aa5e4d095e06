// A rank's end of the channel to its supervisor: a thread that listens, and a call that sends.
//
// Life cycle: made from the inherited descriptor, listen() once everybody is built who may be told,
// destroyed last. The supervisor's end is the process's end: `gone` is called when it closes.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "base/channel.hpp"
#include "base/error.hpp"
#include "schemas/supervisor_message.hpp"

namespace troupe::actors {

class supervisor_link {
 public:
  // Called on the link's thread, in the order of arrival; must not block.
  struct handlers {
    std::function<void(const schemas::control_plane_at&)> control_plane_at;
    std::function<void(base::epoch_id, base::fd)> segment;
    std::function<void(const schemas::rank_lost&)> rank_lost;
    std::function<void(const schemas::drain&)> drain;
    std::function<void()> gone;
  };

  [[nodiscard]] static base::result<std::unique_ptr<supervisor_link>> make(base::fd channel);
  supervisor_link(const supervisor_link&) = delete;
  supervisor_link& operator=(const supervisor_link&) = delete;
  ~supervisor_link();

  void listen(handlers told);

  // Any thread. Waits a moment for a supervisor that is behind; a message that finds none is lost,
  // since the process is about to end then.
  void send(const schemas::supervisor_message& message) noexcept;

  // Steady time since the supervisor's last word: what /health looks at.
  [[nodiscard]] std::chrono::milliseconds silence() const noexcept;

 private:
  supervisor_link(base::channel channel, base::fd stop);
  void run(const handlers& told);
  [[nodiscard]] bool take_one(const handlers& told);  // false: nothing more waits
  void dispatch(const handlers& told, base::channel::datagram received);

  const base::channel channel_;
  const base::fd stop_;  // eventfd
  std::atomic<std::uint64_t> heard_ns_;
  std::atomic<bool> closed_{false};
  std::thread thread_;
};

}  // namespace troupe::actors
