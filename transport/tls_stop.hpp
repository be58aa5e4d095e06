// The switch that ends a TLS data plane: any thread may throw it, every wait watches it.
//
// It resets the connections it knows of (RST, not FIN): a peer that waits for a third rank sees a
// reset at once, while the FIN of a rank that has ended its work in good order disturbs nobody.
// Internal to transport/.
#pragma once

#include "base/error.hpp"
#include "base/fd.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace troupe::transport {

class tls_stop {
 public:
  [[nodiscard]] static base::result<std::shared_ptr<tls_stop>> make();

  // A connection that raise() shall reset. Forgotten before its descriptor is closed: the number
  // may be another file's then.
  void watch(int socket);
  void forget(int socket) noexcept;

  // Any thread, also twice.
  void raise() noexcept;
  [[nodiscard]] bool raised() const noexcept { return raised_.load(std::memory_order_acquire); }
  // Readable for ever once raised.
  [[nodiscard]] int descriptor() const noexcept { return event_.get(); }

 private:
  explicit tls_stop(base::fd event) : event_(std::move(event)) {}

  const base::fd event_;
  std::atomic<bool> raised_{false};
  std::mutex mutex_;  // guards the list
  std::vector<int> sockets_;
};

// What the data plane, its mesh and its meeting count together. Relaxed: figures for people.
struct tls_counters {
  std::atomic<std::uint64_t> bytes_sent{0};
  std::atomic<std::uint64_t> bytes_received{0};
  std::atomic<std::uint64_t> stale_messages{0};
};

}  // namespace troupe::transport
