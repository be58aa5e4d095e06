// How a UCX mesh begins and ends: endpoints and greetings, abort, goodbye.
#include "transport/ucx_mesh.hpp"

#include "transport/ucx_address.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

namespace troupe::transport {
namespace {

using clock = ucx_worker::clock;

// What a rank that leaves in peace gives its peers to take its last messages: those in a call do so
// at once. One that takes them later finds them in its kernel's buffers, but for what UCX has not
// transferred yet.
constexpr std::chrono::milliseconds linger_max{20};
// Force-closing all endpoints is done in some 100 us; the worker's end frees what is left.
constexpr std::chrono::seconds close_max{1};
// Turns that abort() gives its messages to leave: one does where the network is not congested.
constexpr int tell_turns = 8;

}  // namespace

ucx_mesh::ucx_mesh(data_plane_seat seat, std::unique_ptr<ucx_worker> worker)
    : seat_(seat), worker_(std::move(worker)), peers_(static_cast<std::size_t>(size())) {
  for (std::size_t other = 0; other < peers_.size(); ++other) {
    peers_[other].rank = static_cast<int>(other);
  }
}

base::result<std::shared_ptr<ucx_mesh>> ucx_mesh::open(data_plane_seat seat) {
  const int ranks = seat.shape.tp_size * seat.shape.pp_size;
  if (seat.shape.tp_size < 1 || seat.shape.pp_size < 1 || ranks > group_size_max || seat.rank < 0 ||
      seat.rank >= ranks) {
    return base::fail(
        base::error_code::invalid_argument, "transport",
        fmt::format("rank {} of {} x {} ranks has no seat: a gang has 1 to {} ranks", seat.rank,
                    seat.shape.tp_size, seat.shape.pp_size, group_size_max));
  }
  TROUPE_TRY(worker, ucx_worker::open(ranks));
  TROUPE_TRY(address,
             wrap_ucx_address(
                 {.epoch = seat.epoch, .rank = seat.rank, .ucx_version = worker->ucx().version()},
                 worker->address()));
  std::shared_ptr<ucx_mesh> mesh(new ucx_mesh(seat, std::move(worker)));
  mesh->address_ = std::move(address);
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = ucx_message_id;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = on_message;
  handler.arg = mesh.get();
  const ucx_worker& made = *mesh->worker_;
  if (const auto set = made.ucx().worker_set_am_recv_handler(made.handle(), &handler);
      set != UCS_OK) {
    return base::fail(base::error_code::failed_precondition, "transport",
                      fmt::format("UCX takes no active messages: {}", made.text(set)));
  }
  return mesh;
}

base::result<void> ucx_mesh::connect(std::span<const data_plane_address> addresses,
                                     std::chrono::milliseconds patience) {
  if (aborted_.load(std::memory_order_seq_cst) || busy_.exchange(true)) return fail_aborted();
  auto outcome = meet(addresses, clock::now() + patience);
  busy_.store(false, std::memory_order_seq_cst);
  tell_if_free();
  return outcome;
}

base::result<void> ucx_mesh::meet(std::span<const data_plane_address> addresses,
                                  time_point deadline) {
  if (std::exchange(met_, true)) {
    return base::fail(base::error_code::failed_precondition, "transport",
                      "a data plane connects once: open another for the next epoch");
  }
  if (addresses.size() != peers_.size()) {
    return base::fail(base::error_code::invalid_argument, "transport",
                      fmt::format("{} UCX addresses for {} ranks", addresses.size(), size()));
  }
  for (ucx_peer& other : peers_) {
    if (other.rank == rank()) continue;
    TROUPE_TRY_VOID(make_endpoint(other, addresses[static_cast<std::size_t>(other.rank)]));
  }
  for (ucx_peer& other : peers_) {
    if (other.rank == rank()) continue;
    other.greeting = header_for(other, ucx_message_kind::hello);
    post(other, other.greets, {.header = &other.greeting});
  }
  return wait_for_all(deadline);
}

base::result<void> ucx_mesh::make_endpoint(ucx_peer& peer, const data_plane_address& address) {
  TROUPE_TRY(bytes,
             unwrap_ucx_address(
                 {.epoch = seat_.epoch, .rank = peer.rank, .ucx_version = worker_->ucx().version()},
                 address));
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(bytes.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = on_failure;
  params.err_handler.arg = &peer;
  const ucs_status_t made = worker_->ucx().ep_create(worker_->handle(), &params, &peer.endpoint);
  if (made == UCS_OK) return {};
  peer.endpoint = nullptr;
  peer.failure = made;
  return base::fail(base::error_code::unavailable, "transport",
                    fmt::format("UCX has no way to rank {}: {} (UCX_NET_DEVICES and UCX_TLS must "
                                "name what both hosts have)",
                                peer.rank, worker_->text(made)),
                    true);
}

base::result<void> ucx_mesh::wait_for_all(time_point deadline) {
  for (;;) {
    if (aborted_.load(std::memory_order_seq_cst)) return fail_aborted();
    std::string missing;
    bool sending = false;
    for (ucx_peer& other : peers_) {
      if (other.rank == rank()) continue;
      sending = other.greets.pending(worker_->ucx()) || sending;
      if (other.failure != UCS_OK) return fail_gone(other);
      if (!other.heard) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", other.rank);
    }
    if (missing.empty() && !sending) return {};
    if (clock::now() >= deadline) {
      return base::fail(base::error_code::unavailable, "transport",
                        missing.empty()
                            ? std::string("UCX could not greet all ranks in time")
                            : fmt::format("no UCX message from rank {} in time", missing),
                        true);
    }
    worker_->turn(deadline);
  }
}

// To every peer that can be reached: a message without data, which nothing waits for.
void ucx_mesh::bid(ucx_message_kind what) noexcept {
  for (ucx_peer& other : peers_) {
    if (other.endpoint == nullptr || other.failure != UCS_OK) continue;
    if (other.bids.pending(worker_->ucx())) continue;
    other.farewell = header_for(other, what);
    post(other, other.bids, {.header = &other.farewell});
  }
}

bool ucx_mesh::bidding() noexcept {
  bool any = false;
  for (ucx_peer& other : peers_) any = other.bids.pending(worker_->ucx()) || any;
  return any;
}

// The worker is this thread's. Twice is once.
void ucx_mesh::tell_abort() noexcept {
  if (told_.exchange(true)) return;
  bid(ucx_message_kind::abort);
}

// The peers are told by abort() itself when no call runs, else by the call, which holds the worker,
// on its way out. Either abort() sees the worker free, or the call sees the abort: each writes one
// of the two and then reads the other, in sequentially consistent order.
void ucx_mesh::tell_if_free() noexcept {
  while (aborted_.load(std::memory_order_seq_cst) && !told_.load(std::memory_order_seq_cst)) {
    if (busy_.exchange(true)) return;
    tell_abort();
    for (int turn = 0; turn < tell_turns && bidding(); ++turn) {
      worker_->ucx().worker_progress(worker_->handle());
    }
    busy_.store(false, std::memory_order_seq_cst);
  }
}

// A socket that is closed over unread bytes takes back what the network still carries, so a rank
// that leaves in peace reads on for a moment, until all it sent has been taken.
void ucx_mesh::say_goodbye() noexcept {
  const auto deadline = clock::now() + linger_max;
  bid(ucx_message_kind::goodbye);
  const auto waits_for = [](const ucx_peer& other) {
    return other.endpoint != nullptr && other.failure == UCS_OK && other.heard && !other.left &&
           other.acknowledged != other.sent;
  };
  while (clock::now() < deadline && !aborted_.load(std::memory_order_seq_cst) &&
         (bidding() || std::any_of(peers_.begin(), peers_.end(), waits_for))) {
    worker_->turn(deadline);
  }
}

void ucx_mesh::close(ucx_peer& peer) noexcept {
  if (peer.endpoint == nullptr) return;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  peer.closing.start(worker_->ucx().ep_close_nbx(std::exchange(peer.endpoint, nullptr), &param));
  if (peer.failure == UCS_OK) peer.failure = UCS_ERR_CANCELED;
}

bool ucx_mesh::closing() noexcept {
  bool any = false;
  for (ucx_peer& other : peers_) {
    any = other.closing.pending(worker_->ucx()) || any;
    any = other.greets.pending(worker_->ucx()) || any;
  }
  return bidding() || any;
}

ucx_mesh::~ucx_mesh() {
  while (busy_.exchange(true)) std::this_thread::yield();  // an abort() on its last steps
  if (!aborted_.load(std::memory_order_seq_cst)) say_goodbye();
  if (aborted_.load(std::memory_order_seq_cst)) tell_abort();
  const ucx_library& ucx = worker_->ucx();
  for (ucx_peer& other : peers_) close(other);
  for (ucx_peer& other : peers_) {
    // After the end of its endpoint: the sender is not told that it was received.
    for (ucx_slot& slot : other.slots) {
      if (slot.offer != nullptr) ucx.am_data_release(worker_->handle(), slot.offer);
      slot.offer = nullptr;
    }
  }
  const auto deadline = clock::now() + close_max;
  while (closing() && clock::now() < deadline) ucx.worker_progress(worker_->handle());
}

}  // namespace troupe::transport
