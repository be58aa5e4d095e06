// Answers HTTP while rank 0 has no process: /health with 200, all else with 503, so that nobody
// waits for an answer that cannot come. It accepts only while it is on; what it has accepted it
// ends within a second.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "supervisor/poll_set.hpp"

namespace troupe::supervisor {

// The whole answer to a request whose head has been read, or to one that is none.
[[nodiscard]] std::string stand_in_answer(std::string_view request, std::string_view reason);

class stand_in {
 public:
  static constexpr std::size_t connections_max = 64;
  static constexpr std::size_t request_bytes_max = 8192;
  static constexpr std::chrono::milliseconds patience{1000};

  // The listening socket is borrowed and becomes non-blocking; -1: never on.
  explicit stand_in(int listening);

  void set(bool on, std::string reason);
  void watch(poll_set& polls);
  // Ends what has taken its second.
  void expire(base::steady_time now);
  [[nodiscard]] std::optional<base::steady_time> next_due() const;

 private:
  struct client {
    base::fd socket;
    base::steady_time due;
    std::string request;
    bool answered = false;  // only waits for the client to close
  };
  void accept();
  void read(std::uint64_t number);

  int listening_ = -1;
  bool on_ = false;
  std::string reason_;
  std::map<std::uint64_t, client> clients_;
  std::uint64_t next_number_ = 0;
};

}  // namespace troupe::supervisor
