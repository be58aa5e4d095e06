// One TLS connection on its way to become a rank's: reached, shaken hands, greeted, judged.
// Internal to transport/.
//
//   dialling rank:   reach -> shake -> hear the greeting -> tell its own -> hear the verdict
//   accepting rank:           shake -> tell the greeting -> hear the other's -> tell the verdict
//
// The accepting rank speaks first: a dialling one whose certificate is refused then reads why,
// instead of losing the alert to a reset.
#pragma once

#include "base/fd.hpp"
#include "base/tls.hpp"
#include "transport/data_plane.hpp"
#include "transport/tls_mesh.hpp"
#include "transport/tls_wire.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace troupe::transport {

// What a call needs to know of the rank that takes or makes it.
struct tls_desk {
  data_plane_seat seat;
  const base::tls_context& server;
  const base::tls_context& client;
  // Whether that rank has a connection or the promise of one.
  std::function<bool(int)> is_taken;
};

class tls_call {
 public:
  using time = std::chrono::steady_clock::time_point;

  // A rank below this one; the socket is connecting.
  [[nodiscard]] static tls_call dialled(int rank, tls_wire::endpoint at, base::fd socket);
  // Somebody. Errors: internal.
  [[nodiscard]] static base::result<tls_call> accepted(const tls_desk& desk, base::fd socket);

  // Goes on as far as it goes without waiting.
  // Errors: the call is over. retryable: dial again.
  base::result<void> advance(const tls_desk& desk);

  [[nodiscard]] bool is_dialled() const noexcept { return dialled_; }
  [[nodiscard]] bool is_seated() const noexcept { return at_ == stage::seated; }
  // The rank that was dialled; of an accepted call the one it is welcome as, else -1.
  [[nodiscard]] int rank() const noexcept { return rank_; }
  // Whether its greeting was of another epoch.
  [[nodiscard]] bool is_stale() const noexcept {
    return verdict_ == tls_wire::verdict::other_epoch;
  }
  [[nodiscard]] const std::string& peer() const noexcept { return peer_; }
  // What to poll for.
  [[nodiscard]] int descriptor() const noexcept;
  [[nodiscard]] short waits_for() const noexcept { return waits_for_; }
  // Once seated: the connection and the peer's name.
  [[nodiscard]] tls_link take_link();

 private:
  enum class stage : std::uint8_t { reach, shake, hear_greeting, tell, hear_verdict, seated };

  tls_call() = default;
  base::result<bool> step(const tls_desk& desk);
  base::result<bool> reach(const tls_desk& desk);
  base::result<bool> shake(const tls_desk& desk);
  base::result<bool> tell();
  base::result<bool> hear(std::span<std::byte> into);
  base::result<bool> weigh_greeting(const tls_desk& desk);
  base::result<bool> weigh_verdict(const tls_desk& desk);
  // Notes what to poll for; `moved` of the caller.
  bool pause(base::tls_progress progress) noexcept;

  bool dialled_ = false;
  int rank_ = -1;
  stage at_ = stage::shake;
  tls_wire::endpoint where_;  // of a dialled one
  base::fd socket_;           // until it is the session's
  std::optional<base::tls_session> session_;
  std::string peer_;
  short waits_for_ = 0;
  std::vector<std::byte> outgoing_;
  std::array<std::byte, tls_wire::greeting_bytes> incoming_{};
  std::size_t heard_ = 0;
  tls_wire::verdict verdict_ = tls_wire::verdict::welcome;
  std::string refusal_;        // what is wrong with the peer, if anything
  bool told_verdict_ = false;  // an accepted call has nothing more to say
};

}  // namespace troupe::transport
