// A rank's messages to and from all others over UCX: `point_to_point` of the UCX data plane.
//
// Active messages with a header of ours (ucx_wire.hpp): the receiver sees whose message it is, of
// what epoch and operation, whatever it waits for, so ranks out of step are found; with UCX's tags
// a message nobody asked for would only never match. Numbered per pair and put in order here, since
// UCX orders nothing between two of its protocols or lanes.
//
// One thread at a time works on the worker: the rank's, or between its calls abort()'s, to tell the
// peers. `busy_` is that hand-over. Internal to the UCX data plane.
#pragma once

#include "transport/data_plane.hpp"
#include "transport/point_to_point.hpp"
#include "transport/ucx_peer.hpp"
#include "transport/ucx_worker.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace troupe::transport {

class ucx_mesh final : public point_to_point {
 public:
  // Errors: as ucx_worker::open
  [[nodiscard]] static base::result<std::shared_ptr<ucx_mesh>> open(data_plane_seat seat);
  // Tells the peers, waits a moment until they have taken what was sent, closes. At most about 1 s.
  ~ucx_mesh() override;

  [[nodiscard]] const data_plane_address& address() const noexcept { return address_; }
  [[nodiscard]] base::result<void> connect(std::span<const data_plane_address> addresses,
                                           std::chrono::milliseconds patience);
  [[nodiscard]] data_plane_counters counters() const noexcept;

  int rank() const noexcept override { return seat_.rank; }
  int size() const noexcept override { return seat_.shape.tp_size * seat_.shape.pp_size; }
  base::result<void> send(message_tag tag, outgoing message) override;
  base::result<void> receive(message_tag tag, incoming message) override;
  base::result<void> exchange(message_tag tag, outgoing out, incoming in) override;
  void abort() noexcept override;

 private:
  using time_point = ucx_worker::clock::time_point;

  ucx_mesh(data_plane_seat seat, std::unique_ptr<ucx_worker> worker);

  // ucx_mesh_connect.cpp: the first and the last of a mesh.
  base::result<void> meet(std::span<const data_plane_address> addresses, time_point deadline);
  base::result<void> make_endpoint(ucx_peer& peer, const data_plane_address& address);
  base::result<void> wait_for_all(time_point deadline);
  void tell_abort() noexcept;
  void tell_if_free() noexcept;
  void say_goodbye() noexcept;
  void close(ucx_peer& peer) noexcept;
  void bid(ucx_message_kind what) noexcept;
  bool bidding() noexcept;
  bool closing() noexcept;

  // ucx_mesh.cpp: calls.
  base::result<void> run(ucx_transfer& transfer);
  base::result<void> pump(ucx_transfer& transfer);
  base::result<void> advance_send(ucx_transfer& transfer);
  base::result<void> advance_receive(ucx_transfer& transfer);
  base::result<void> begin_receive(ucx_transfer& transfer);
  void finish_receive(ucx_transfer& transfer);
  void cancel(ucx_transfer& transfer) noexcept;
  [[nodiscard]] ucx_header header_for(const ucx_peer& peer, ucx_message_kind what) const noexcept;
  void post(ucx_peer& peer, ucx_request& request, ucx_parcel parcel) noexcept;
  ucx_peer& peer(int rank);
  [[nodiscard]] tl::unexpected<base::error> fail_gone(const ucx_peer& peer) const;

  // ucx_mesh_arrivals.cpp: what UCX calls from within turn().
  static ucs_status_t on_message(void* self, const void* header, std::size_t header_bytes,
                                 void* data, std::size_t bytes,
                                 const ucp_am_recv_param_t* param) noexcept;
  static void on_failure(void* peer, ucp_ep_h endpoint, ucs_status_t status) noexcept;
  ucs_status_t arrived(const ucx_header& header, void* data, std::size_t bytes, bool offered);
  ucs_status_t hold(ucx_peer& from, const ucx_header& header, void* data, std::size_t bytes,
                    bool offered);
  bool place(ucx_peer& from, const ucx_header& header, const void* data, std::size_t bytes);

  const data_plane_seat seat_;
  data_plane_address address_;
  std::unique_ptr<ucx_worker> worker_;
  std::vector<ucx_peer> peers_;      // by rank; the own one is not used
  ucx_transfer* current_ = nullptr;  // the call that runs, if any
  bool met_ = false;                 // connect() has been called
  bool impossible_ = false;          // a peer broke the order of its messages

  std::atomic<bool> busy_{false};
  std::atomic<bool> aborted_{false};
  std::atomic<bool> told_{false};  // the peers know of the abort
  std::atomic<std::uint64_t> bytes_sent_{0};
  std::atomic<std::uint64_t> bytes_received_{0};
  std::atomic<std::uint64_t> stale_messages_{0};
};

}  // namespace troupe::transport
