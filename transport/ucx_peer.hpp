// One peer of a UCX mesh, and one call of a rank on it. Plain state: ucx_mesh moves it. Internal to
// the UCX data plane.
#pragma once

#include "transport/point_to_point.hpp"
#include "transport/ucx_library.hpp"
#include "transport/ucx_wire.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace troupe::transport {

// A UCX operation in flight. Asked until done, then freed; whoever starts one sees it to its end.
class ucx_request {
 public:
  // `returned` is what an _nbx function gave: null (done), an error, or a request.
  void start(ucs_status_ptr_t returned) noexcept {
    status_ = UCS_PTR_IS_PTR(returned) ? UCS_INPROGRESS : UCS_PTR_STATUS(returned);
    handle_ = UCS_PTR_IS_PTR(returned) ? returned : nullptr;
  }
  [[nodiscard]] bool pending(const ucx_library& ucx) noexcept {
    if (handle_ == nullptr) return false;
    status_ = ucx.request_check_status(handle_);
    if (status_ == UCS_INPROGRESS) return true;
    ucx.request_free(std::exchange(handle_, nullptr));
    return false;
  }
  // UCS_INPROGRESS until pending() has said no.
  [[nodiscard]] ucs_status_t status() const noexcept { return status_; }

 private:
  void* handle_ = nullptr;
  ucs_status_t status_ = UCS_OK;
};

// A message that came before it was asked for.
struct ucx_slot {
  enum class state : std::uint8_t {
    empty,
    held,     // its bytes are in `bytes`
    offered,  // its bytes are with the sender, `offer` fetches them
    placed,   // its bytes are where the waiting call wants them
  };
  state is = state::empty;
  ucx_header header;
  std::size_t size = 0;
  std::vector<std::byte> bytes;  // keeps its capacity: at most ucx_eager_bytes_max
  void* offer = nullptr;
};

// What is sent; UCX reads it until its request is done.
struct ucx_parcel {
  const ucx_header* header = nullptr;
  std::span<const std::byte> bytes{};
  bool at_once = true;
};

struct ucx_peer {
  int rank = 0;
  ucp_ep_h endpoint = nullptr;
  ucs_status_t failure = UCS_OK;  // why the endpoint is of no use
  bool heard = false;             // its hello has come
  bool left = false;              // its goodbye has come,
  std::uint32_t last = 0;         // after so many messages
  std::uint32_t sent = 0;         // messages of data to it
  std::uint32_t acknowledged = 0;
  std::uint32_t consumed = 0;       // messages of data from it
  std::uint32_t told = 0;           // the `consumed` it knows of
  std::size_t untold_bytes = 0;     // that it sent at once, taken since then
  std::uint64_t bytes_at_once = 0;  // to it
  std::array<std::uint64_t, ucx_window_messages> bytes_before{};  // the same, before a message
  std::array<ucx_slot, ucx_window_messages> slots;

  // Messages without data outlive the call that sends them, so their headers live here.
  ucx_header greeting;
  ucx_header farewell;
  ucx_request greets;
  ucx_request bids;
  ucx_request closing;

  [[nodiscard]] ucx_slot& head() noexcept { return slots[consumed % ucx_window_messages]; }
  [[nodiscard]] bool has_room() const noexcept { return sent - acknowledged < ucx_window_messages; }
  [[nodiscard]] bool may_send_at_once(std::size_t bytes) const noexcept {
    if (bytes > ucx_eager_bytes_max) return false;
    const std::uint64_t unread =
        sent == acknowledged ? 0 : bytes_at_once - bytes_before[acknowledged % ucx_window_messages];
    return unread + bytes <= ucx_unread_bytes_max;
  }
  // Nothing more comes from it.
  [[nodiscard]] bool silent() const noexcept {
    return failure != UCS_OK || (left && consumed == last);
  }
};

// One send, receive or exchange. No request of it outlives the call.
struct ucx_transfer {
  message_tag tag{};
  ucx_peer* to = nullptr;
  std::span<const std::byte> out{};
  ucx_peer* from = nullptr;
  std::span<std::byte> in{};

  bool started = false;
  bool sent = false;
  bool fetching = false;
  bool received = false;
  ucx_header header{};  // read by UCX until its message has left
  ucx_header acknowledgement{};
  ucx_request send{};
  ucx_request fetch{};
  ucx_request acknowledge{};

  [[nodiscard]] bool pending(const ucx_library& ucx) noexcept {
    // Each is asked: asking is what frees a finished one.
    const std::array waits = {send.pending(ucx), fetch.pending(ucx), acknowledge.pending(ucx)};
    for (const bool wait : waits) {
      if (wait) return true;
    }
    return false;
  }
};

}  // namespace troupe::transport
