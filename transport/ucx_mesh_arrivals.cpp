// What comes in: UCX calls these while the rank's own thread progresses its worker.
#include "transport/ucx_mesh.hpp"

#include <cstring>

namespace troupe::transport {
namespace {

message_tag tag_of(const ucx_header& header) noexcept {
  return {.kind = static_cast<operation>(header.kind),
          .round = header.round,
          .group = header.group,
          .number = header.number};
}

}  // namespace

// noexcept: nothing may be thrown through UCX's frames; without memory the process ends here.
ucs_status_t ucx_mesh::on_message(void* self, const void* header, std::size_t header_bytes,
                                  void* data, std::size_t bytes,
                                  const ucp_am_recv_param_t* param) noexcept {
  auto& mesh = *static_cast<ucx_mesh*>(self);
  ucx_header copy;
  // Returning UCS_OK without having taken it drops a message; its sender is told so where it waits.
  if (header_bytes != sizeof copy) {
    mesh.stale_messages_.fetch_add(1, std::memory_order_relaxed);
    return UCS_OK;
  }
  std::memcpy(&copy, header, sizeof copy);
  const bool offered = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  return mesh.arrived(copy, data, bytes, offered);
}

void ucx_mesh::on_failure(void* peer, ucp_ep_h /*endpoint*/, ucs_status_t status) noexcept {
  auto& lost = *static_cast<ucx_peer*>(peer);
  if (lost.failure == UCS_OK) lost.failure = status;
}

ucs_status_t ucx_mesh::arrived(const ucx_header& header, void* data, std::size_t bytes,
                               bool offered) {
  const base::epoch_id epoch{.incarnation = header.incarnation, .number = header.epoch_number};
  // A port that an older epoch used may be ours now, and its peers may still send to it.
  if (header.version != ucx_wire_version || epoch != seat_.epoch || header.source >= size() ||
      header.source == rank()) {
    stale_messages_.fetch_add(1, std::memory_order_relaxed);
    return UCS_OK;
  }
  ucx_peer& from = peers_[header.source];
  // Never back, never beyond what was sent: an acknowledgement may arrive after a later one.
  const std::uint32_t newly = header.consumed - from.acknowledged;
  if (newly <= from.sent - from.acknowledged) from.acknowledged = header.consumed;
  switch (header.what) {
    case ucx_message_kind::data:
      return hold(from, header, data, bytes, offered);
    case ucx_message_kind::hello:
      from.heard = true;
      break;
    case ucx_message_kind::abort:
      aborted_.store(true, std::memory_order_seq_cst);
      break;
    case ucx_message_kind::goodbye:
      from.left = true;
      from.last = header.sequence;
      break;
    case ucx_message_kind::acknowledge:
      break;
  }
  return UCS_OK;
}

ucs_status_t ucx_mesh::hold(ucx_peer& from, const ucx_header& header, void* data, std::size_t bytes,
                            bool offered) {
  ucx_slot& slot = from.slots[header.sequence % ucx_window_messages];
  if (header.sequence - from.consumed >= ucx_window_messages || slot.is != ucx_slot::state::empty ||
      (!offered && bytes > ucx_eager_bytes_max)) {
    impossible_ = true;  // the sender keeps to the window, so this is no message of this program
    return UCS_OK;
  }
  slot.header = header;
  slot.size = bytes;
  if (offered) {
    slot.is = ucx_slot::state::offered;
    slot.offer = data;
    return UCS_INPROGRESS;  // kept until it is fetched or released
  }
  if (place(from, header, data, bytes)) {
    slot.is = ucx_slot::state::placed;
    return UCS_OK;
  }
  const auto* const begin = static_cast<const std::byte*>(data);
  slot.bytes.assign(begin, begin + bytes);
  slot.is = ucx_slot::state::held;
  return UCS_OK;
}

// Saves a copy where the message is the one that the running call waits for.
bool ucx_mesh::place(ucx_peer& from, const ucx_header& header, const void* data,
                     std::size_t bytes) {
  if (current_ == nullptr || current_->from != &from || current_->received ||
      header.sequence != from.consumed || bytes != current_->in.size() ||
      tag_of(header) != current_->tag) {
    return false;
  }
  if (bytes != 0) std::memcpy(current_->in.data(), data, bytes);
  return true;
}

}  // namespace troupe::transport
