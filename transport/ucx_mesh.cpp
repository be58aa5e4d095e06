#include "transport/ucx_mesh.hpp"

#include "base/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

namespace troupe::transport {
namespace {

// How long a call that has failed waits until UCX lets go of its buffers. Force-closing an endpoint
// does that in some 100 us.
constexpr std::chrono::seconds cancel_max{1};
// Before that, for the abort message to leave.
constexpr std::chrono::microseconds tell_max{300};

std::string text_of(message_tag tag, std::size_t bytes) {
  return fmt::format("{} bytes of {} number {} round {} group {}", bytes, to_string(tag.kind),
                     tag.number, tag.round, tag.group);
}

}  // namespace

ucx_peer& ucx_mesh::peer(int rank) {
  TROUPE_CHECK(rank >= 0 && rank < size() && rank != seat_.rank);
  return peers_[static_cast<std::size_t>(rank)];
}

base::result<void> ucx_mesh::send(message_tag tag, outgoing message) {
  ucx_transfer transfer{.tag = tag, .to = &peer(message.to), .out = message.bytes};
  return run(transfer);
}

base::result<void> ucx_mesh::receive(message_tag tag, incoming message) {
  ucx_transfer transfer{.tag = tag, .from = &peer(message.from), .in = message.bytes};
  return run(transfer);
}

base::result<void> ucx_mesh::exchange(message_tag tag, outgoing out, incoming in) {
  ucx_transfer transfer{
      .tag = tag, .to = &peer(out.to), .out = out.bytes, .from = &peer(in.from), .in = in.bytes};
  return run(transfer);
}

base::result<void> ucx_mesh::run(ucx_transfer& transfer) {
  // Only abort() can hold the worker here: a rank's calls come from one thread.
  if (aborted_.load(std::memory_order_seq_cst) || busy_.exchange(true)) return fail_aborted();
  current_ = &transfer;
  auto outcome = pump(transfer);
  current_ = nullptr;
  if (!outcome) cancel(transfer);
  busy_.store(false, std::memory_order_seq_cst);
  tell_if_free();
  return outcome;
}

base::result<void> ucx_mesh::pump(ucx_transfer& transfer) {
  for (;;) {
    if (aborted_.load(std::memory_order_seq_cst)) return fail_aborted();
    if (impossible_) {
      return base::fail(base::error_code::data_loss, "transport",
                        "a peer's UCX messages break their own order: the network or another "
                        "program has written to this rank's port");
    }
    TROUPE_TRY_VOID(advance_send(transfer));
    TROUPE_TRY_VOID(advance_receive(transfer));
    const bool moved = (transfer.to == nullptr || transfer.sent) &&
                       (transfer.from == nullptr || transfer.received);
    if (moved && !transfer.pending(worker_->ucx())) return {};
    worker_->turn();
  }
}

base::result<void> ucx_mesh::advance_send(ucx_transfer& transfer) {
  if (transfer.to == nullptr || transfer.sent) return {};
  ucx_peer& to = *transfer.to;
  if (!transfer.started) {
    if (to.failure != UCS_OK || to.left) return fail_gone(to);
    if (!to.has_room()) return {};
    transfer.header = header_for(to, ucx_message_kind::data);
    transfer.header.kind = static_cast<std::uint8_t>(transfer.tag.kind);
    transfer.header.round = transfer.tag.round;
    transfer.header.group = transfer.tag.group;
    transfer.header.number = transfer.tag.number;
    to.told = to.consumed;
    to.untold_bytes = 0;
    const bool at_once = to.may_send_at_once(transfer.out.size());
    to.bytes_before[to.sent % ucx_window_messages] = to.bytes_at_once;
    if (at_once) to.bytes_at_once += transfer.out.size();
    ++to.sent;
    post(to, transfer.send,
         {.header = &transfer.header, .bytes = transfer.out, .at_once = at_once});
    transfer.started = true;
  }
  if (transfer.send.pending(worker_->ucx())) return {};
  if (transfer.send.status() != UCS_OK) {
    if (to.failure == UCS_OK) to.failure = transfer.send.status();
    return fail_gone(to);
  }
  transfer.sent = true;
  bytes_sent_.fetch_add(transfer.out.size(), std::memory_order_relaxed);
  return {};
}

base::result<void> ucx_mesh::advance_receive(ucx_transfer& transfer) {
  if (transfer.from == nullptr || transfer.received) return {};
  ucx_peer& from = *transfer.from;
  if (!transfer.fetching) TROUPE_TRY_VOID(begin_receive(transfer));
  if (!transfer.fetching || transfer.fetch.pending(worker_->ucx())) return {};
  if (transfer.fetch.status() != UCS_OK) {
    if (from.failure == UCS_OK) from.failure = transfer.fetch.status();
    return fail_gone(from);
  }
  finish_receive(transfer);
  return {};
}

// Looks at the peer's next message, and begins to fetch it where its bytes are not here yet.
base::result<void> ucx_mesh::begin_receive(ucx_transfer& transfer) {
  ucx_peer& from = *transfer.from;
  ucx_slot& slot = from.head();
  if (slot.is == ucx_slot::state::empty) {
    if (from.silent()) return fail_gone(from);
    return {};
  }
  const message_tag tag{.kind = static_cast<operation>(slot.header.kind),
                        .round = slot.header.round,
                        .group = slot.header.group,
                        .number = slot.header.number};
  if (tag != transfer.tag || slot.size != transfer.in.size()) {
    return base::fail(
        base::error_code::invalid_argument, "transport",
        fmt::format("ranks out of step: rank {} sent {}, rank {} expects {}", from.rank,
                    text_of(tag, slot.size), rank(), text_of(transfer.tag, transfer.in.size())));
  }
  transfer.fetching = true;
  if (slot.is == ucx_slot::state::held) copy_bytes(slot.bytes, transfer.in);
  if (slot.is != ucx_slot::state::offered) return {};
  static constexpr ucp_request_param_t param{};
  transfer.fetch.start(worker_->ucx().am_recv_data_nbx(worker_->handle(),
                                                       std::exchange(slot.offer, nullptr),
                                                       transfer.in.data(), slot.size, &param));
  return {};
}

void ucx_mesh::finish_receive(ucx_transfer& transfer) {
  ucx_peer& from = *transfer.from;
  ucx_slot& slot = from.head();
  if (slot.is != ucx_slot::state::offered) from.untold_bytes += slot.size;
  slot.is = ucx_slot::state::empty;
  ++from.consumed;
  transfer.received = true;
  bytes_received_.fetch_add(transfer.in.size(), std::memory_order_relaxed);
  // Half a window in time, so that a peer that only sends never stands still. One that leaves waits
  // for the last only; a send that it no longer takes could cost what is still to be read from it.
  const bool due = from.left ? from.consumed == from.last
                             : from.consumed - from.told >= ucx_window_messages / 2 ||
                                   from.untold_bytes >= ucx_unread_bytes_max / 2;
  if (!due || from.failure != UCS_OK) return;
  transfer.acknowledgement = header_for(from, ucx_message_kind::acknowledge);
  from.told = from.consumed;
  from.untold_bytes = 0;
  post(from, transfer.acknowledge, {.header = &transfer.acknowledgement});
}

// UCX may read or write the caller's buffers as long as a request is in flight: closing the
// endpoint ends its requests.
void ucx_mesh::cancel(ucx_transfer& transfer) noexcept {
  const ucx_library& ucx = worker_->ucx();
  if (!transfer.pending(ucx)) return;
  const auto start = ucx_worker::clock::now();
  // Whoever fails in the middle of a call ends the group, and has to say so before it closes: the
  // peer's own connection to this rank stays open, so it would wait for the rest of a message for
  // as long as this worker lives.
  aborted_.store(true, std::memory_order_seq_cst);
  tell_abort();
  while (bidding() && ucx_worker::clock::now() - start < tell_max) {
    ucx.worker_progress(worker_->handle());
  }
  if (transfer.to != nullptr) close(*transfer.to);
  if (transfer.from != nullptr) close(*transfer.from);
  while (transfer.pending(ucx)) {
    ucx.worker_progress(worker_->handle());
    // Going on would let UCX write to memory that is the caller's again.
    TROUPE_CHECK(ucx_worker::clock::now() - start < cancel_max);
  }
}

ucx_header ucx_mesh::header_for(const ucx_peer& peer, ucx_message_kind what) const noexcept {
  return {.incarnation = seat_.epoch.incarnation,
          .epoch_number = seat_.epoch.number,
          .sequence = peer.sent,
          .consumed = peer.consumed,
          .what = what,
          .source = static_cast<std::uint8_t>(seat_.rank),
          .version = ucx_wire_version};
}

void ucx_mesh::post(ucx_peer& peer, ucx_request& request, ucx_parcel parcel) noexcept {
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = parcel.at_once ? UCP_AM_SEND_FLAG_EAGER : UCP_AM_SEND_FLAG_RNDV;
  request.start(worker_->ucx().am_send_nbx(peer.endpoint, ucx_message_id, parcel.header,
                                           sizeof *parcel.header, parcel.bytes.data(),
                                           parcel.bytes.size(), &param));
}

tl::unexpected<base::error> ucx_mesh::fail_gone(const ucx_peer& peer) const {
  const std::string why =
      peer.failure == UCS_OK ? "it has left the gang" : worker_->text(peer.failure);
  return base::fail(base::error_code::unavailable, "transport",
                    fmt::format("rank {} is gone: {}", peer.rank, why), true);
}

data_plane_counters ucx_mesh::counters() const noexcept {
  return {.bytes_sent = bytes_sent_.load(std::memory_order_relaxed),
          .bytes_received = bytes_received_.load(std::memory_order_relaxed),
          .stale_messages = stale_messages_.load(std::memory_order_relaxed)};
}

void ucx_mesh::abort() noexcept {
  aborted_.store(true, std::memory_order_seq_cst);
  worker_->wake();
  tell_if_free();
}

}  // namespace troupe::transport
