// Messages between the ranks of a gang over one TLS connection a pair. Internal to transport/.
#pragma once

#include "base/tls.hpp"
#include "transport/point_to_point.hpp"
#include "transport/tls_stop.hpp"
#include "transport/tls_wire.hpp"

#include <poll.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace troupe::transport {

// One connection of the mesh, greeted and welcome.
struct tls_link {
  std::optional<base::tls_session> session;  // none: this rank's own entry
  std::string peer;                          // "rank 3 at 10.0.0.3:8480", for messages
};

class tls_mesh final : public point_to_point {
 public:
  struct parts {
    data_plane_seat seat;
    std::vector<tls_link> links;  // one a rank; their sockets are known to `stop`
    std::shared_ptr<tls_stop> stop;
    std::shared_ptr<tls_counters> counters;
    std::chrono::microseconds spin;
  };
  explicit tls_mesh(parts made);
  ~tls_mesh() override;

  int rank() const noexcept override { return parts_.seat.rank; }
  int size() const noexcept override { return static_cast<int>(parts_.links.size()); }
  base::result<void> send(message_tag tag, outgoing message) override;
  base::result<void> receive(message_tag tag, incoming message) override;
  base::result<void> exchange(message_tag tag, outgoing out, incoming in) override;
  void abort() noexcept override { parts_.stop->raise(); }

 private:
  // A message on its way out. Its header and first bytes travel in one record, and so in one
  // system call and segment where the message is short.
  struct sending {
    int to = -1;
    std::span<const std::byte> first;  // header and what fits after it, in first_record_
    std::span<const std::byte> rest;
    short waits_for = 0;  // events of poll()
    [[nodiscard]] bool done() const noexcept { return first.empty() && rest.empty(); }
  };
  struct receiving {
    int from = -1;
    std::span<std::byte> head;  // the part of the header that is missing
    std::span<std::byte> body;
    short waits_for = 0;
    [[nodiscard]] bool done() const noexcept { return head.empty() && body.empty(); }
  };

  [[nodiscard]] sending start(message_tag tag, outgoing message);
  [[nodiscard]] receiving start(incoming message);
  base::result<void> run(message_tag tag, sending out, receiving in);
  // Each moves at most a record; whether it moved anything.
  base::result<bool> advance(sending& out);
  base::result<bool> advance(receiving& in, message_tag expected);
  base::result<void> check_header(const receiving& in, message_tag expected);
  base::result<void> wait(const sending& out, const receiving& in);
  [[nodiscard]] base::tls_session& session(int of) { return *link(of).session; }
  [[nodiscard]] tls_link& link(int of) { return parts_.links[static_cast<std::size_t>(of)]; }
  [[nodiscard]] tl::unexpected<base::error> lost(int peer, const std::string& how) const;

  parts parts_;
  std::vector<pollfd> polled_;  // one a rank, then the stop's
  std::vector<std::byte> first_record_;
  std::array<std::byte, tls_wire::header_bytes> header_{};
};

}  // namespace troupe::transport
