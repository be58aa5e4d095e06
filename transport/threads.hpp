// Groups whose ranks are threads of one process: sums read the other ranks' buffers in place.
//
// Small operations (at most `eager_bytes_max` a rank) copy into shared slots and meet once; large
// ones publish pointers, meet, each rank reads what it needs (a sum: its slice of every buffer,
// written back to every buffer), and meet again. Buffers of different ranks must not overlap.
// Arguments that do not fit together are an error on every rank, and the group stays usable.
//
// Life cycle: a handle is used by one thread and destroyed by its owner; the others' calls that
// need its rank then end with unavailable. abort() ends every wait of all groups made together; a
// rank whose memory another one is still reading returns when that reader has stopped (it looks
// every `chunk_bytes`). Memory: 32 KiB a rank, and per ordered pair that sends, 4 x 64 KiB.
//
//   auto ranks = make_thread_group(2, epoch);   // hand ranks[r] to thread r
#pragma once

#include "transport/collective.hpp"

#include <memory>
#include <span>
#include <vector>

namespace troupe::transport {

// Handle r is rank r's. Range: size 1 .. 64
[[nodiscard]] std::vector<std::unique_ptr<collective>> make_thread_group(int size,
                                                                         base::epoch_id epoch);

// Several groups that are aborted together: one gang's tp, pp and world groups.
// Shape: result[g] has sizes[g] handles.
[[nodiscard]] std::vector<std::vector<std::unique_ptr<collective>>> make_thread_groups(
    std::span<const int> sizes, base::epoch_id epoch);

}  // namespace troupe::transport
