#include "transport/tls_data_plane.hpp"

#include "base/check.hpp"
#include "base/socket.hpp"
#include "transport/arguments.hpp"
#include "transport/mesh_groups.hpp"
#include "transport/tls_meeting.hpp"
#include "transport/tls_mesh.hpp"
#include "transport/tls_stop.hpp"
#include "transport/tls_wire.hpp"

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace troupe::transport {
namespace {

class tls_data_plane final : public data_plane {
 public:
  struct parts {
    data_plane_seat seat;
    base::listening_socket listener;
    base::tls_context server;
    base::tls_context client;
    std::shared_ptr<tls_stop> stop;
    std::chrono::microseconds spin;
    message_options messages;
  };
  explicit tls_data_plane(parts made)
      : parts_(std::move(made)),
        address_(tls_wire::encode({.host = parts_.listener.host, .port = parts_.listener.port})) {}

  const data_plane_address& address() const noexcept override { return address_; }

  base::result<rank_groups> connect(std::span<const data_plane_address> addresses,
                                    std::chrono::milliseconds patience) override {
    auto groups = form(addresses, patience);
    if (!groups) parts_.stop->raise();  // those that are connected already need not wait
    return groups;
  }

  void abort() noexcept override { parts_.stop->raise(); }

  data_plane_counters counters() const noexcept override {
    return {.bytes_sent = counters_->bytes_sent.load(std::memory_order_relaxed),
            .bytes_received = counters_->bytes_received.load(std::memory_order_relaxed),
            .stale_messages = counters_->stale_messages.load(std::memory_order_relaxed)};
  }

 private:
  base::result<rank_groups> form(std::span<const data_plane_address> addresses,
                                 std::chrono::milliseconds patience) {
    TROUPE_CHECK(parts_.listener.descriptor);  // connect() is called once
    TROUPE_TRY(where, places_below(addresses));
    tls_meeting meeting({.seat = parts_.seat,
                         .server = parts_.server,
                         .client = parts_.client,
                         .stop = parts_.stop,
                         .counters = counters_},
                        std::move(parts_.listener.descriptor), std::move(where));
    TROUPE_TRY(links, meeting.hold(patience));
    auto mesh = std::make_shared<tls_mesh>(tls_mesh::parts{.seat = parts_.seat,
                                                           .links = std::move(links),
                                                           .stop = parts_.stop,
                                                           .counters = counters_,
                                                           .spin = parts_.spin});
    return make_mesh_groups(std::move(mesh), parts_.seat.shape, parts_.seat.epoch, parts_.messages);
  }

  // Only the ranks below are dialled, but a list that is wrong anywhere is wrong.
  base::result<std::vector<tls_wire::endpoint>> places_below(
      std::span<const data_plane_address> addresses) const {
    const auto world = static_cast<std::size_t>(parts_.seat.shape.tp_size) *
                       static_cast<std::size_t>(parts_.seat.shape.pp_size);
    if (addresses.size() != world) {
      return base::fail(
          base::error_code::invalid_argument, "transport",
          fmt::format("{} addresses for a gang of {} ranks", addresses.size(), world));
    }
    std::vector<tls_wire::endpoint> where;
    for (std::size_t rank = 0; rank < world; ++rank) {
      if (rank == static_cast<std::size_t>(parts_.seat.rank)) continue;
      auto at = tls_wire::decode_endpoint(addresses[rank]);
      if (!at) {
        return base::fail(base::error_code::invalid_argument, "transport",
                          fmt::format("rank {}: {}", rank, at.error().message));
      }
      if (rank < static_cast<std::size_t>(parts_.seat.rank)) where.push_back(std::move(*at));
    }
    return where;
  }

  parts parts_;
  const data_plane_address address_;
  const std::shared_ptr<tls_counters> counters_ = std::make_shared<tls_counters>();
};

bool is_wildcard(const std::string& host) { return host == "0.0.0.0" || host == "::"; }

}  // namespace

base::result<std::unique_ptr<data_plane>> open_tls(data_plane_seat seat,
                                                   tls_data_plane_options options) {
  const int world = seat.shape.tp_size * seat.shape.pp_size;
  TROUPE_CHECK(seat.shape.tp_size >= 1 && seat.shape.pp_size >= 1 && world <= group_size_max);
  TROUPE_CHECK(seat.rank >= 0 && seat.rank < world && options.credentials != nullptr);
  TROUPE_TRY(server, base::tls_context::make(*options.credentials, base::tls_role::server));
  TROUPE_TRY(client, base::tls_context::make(*options.credentials, base::tls_role::client));
  TROUPE_TRY(listener, base::listen_on({.host = options.host,
                                        .port_first = options.port_first,
                                        .port_last = options.port_last}));
  if (is_wildcard(listener.host)) {
    return base::fail(base::error_code::invalid_argument, "transport",
                      fmt::format("the data plane needs an address that the other ranks reach; "
                                  "{} is every address and none",
                                  options.host));
  }
  TROUPE_TRY(stop, tls_stop::make());
  return std::make_unique<tls_data_plane>(tls_data_plane::parts{.seat = seat,
                                                                .listener = std::move(listener),
                                                                .server = std::move(server),
                                                                .client = std::move(client),
                                                                .stop = std::move(stop),
                                                                .spin = options.spin,
                                                                .messages = options.messages});
}

}  // namespace troupe::transport
