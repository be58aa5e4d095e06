// The data plane of ranks on one host: one shared segment a gang and epoch, and no system call
// while every rank has a core.
//
// The supervisor makes the segment and gives its descriptor to each local rank (over a unix
// socket). A message goes through a ring of its ordered pair of ranks, in pieces when it is longer
// than the ring; a sum goes through boards that every rank of the group reads. Waits spin a bounded
// time, then sleep, and all of them watch the segment's epoch word: whoever marks it, in whatever
// process, ends them all. The ranks trust each other no further than the gang: what another process
// wrote can spoil the results, and end a call with data_loss, but not reach memory outside.
//
//   TROUPE_TRY(segment, make_shared_segment(epoch, ranks));            // the supervisor
//   TROUPE_TRY(watch, shared_segment_watch::open(segment.get()));      // and its hand on it
//   TROUPE_TRY(plane, open_shared_memory(seat, std::move(received)));  // each rank
//   TROUPE_TRY(groups, plane->connect({}, std::chrono::seconds(10)));
#pragma once

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/ids.hpp"
#include "transport/data_plane.hpp"

#include <cstddef>
#include <memory>
#include <utility>

namespace troupe::transport {

// The size of a segment. Its pages cost memory once they are touched: a pair of ranks that talk at
// most a ring each way, a rank that takes part in long sums two boards a group.
// Range: ranks 1 .. group_size_max. Units: bytes, whole pages.
[[nodiscard]] std::size_t shared_segment_bytes(int ranks);

// A new segment, of mode 0600, without a name, sealed so that no holder can change its size.
// Errors: invalid_argument (ranks), resource_exhausted (no descriptor or memory).
[[nodiscard]] base::result<base::fd> make_shared_segment(base::epoch_id epoch, int ranks);

// Maps the segment for one rank; connect() then waits until all ranks have (its addresses are not
// looked at, as address() is empty). A seat is taken once: a restarted rank joins the next epoch.
// Errors: invalid_argument (not such a segment, or of other ranks), aborted (of another epoch),
// resource_exhausted. connect(): unavailable (which ranks did not come), already_exists.
[[nodiscard]] base::result<std::unique_ptr<data_plane>> open_shared_memory(data_plane_seat seat,
                                                                           base::fd segment);

// The supervisor's hand on a segment: it maps the control page alone and never waits. Any thread.
class shared_segment_watch {
 public:
  // Errors: invalid_argument (not such a segment), resource_exhausted.
  [[nodiscard]] static base::result<shared_segment_watch> open(int segment);

  shared_segment_watch(shared_segment_watch&& other) noexcept
      : page_(std::exchange(other.page_, nullptr)) {}
  shared_segment_watch& operator=(shared_segment_watch&& other) noexcept {
    std::swap(page_, other.page_);
    return *this;
  }
  ~shared_segment_watch();

  // Ends every wait of every rank within 1 ms of its next turn on a core, and refuses what follows.
  // One system call marks and wakes: a caller that dies has done both or neither. Also twice.
  void abort() noexcept;
  [[nodiscard]] bool aborted() const noexcept;

 private:
  explicit shared_segment_watch(void* page) noexcept : page_(page) {}
  void* page_ = nullptr;
};

}  // namespace troupe::transport
