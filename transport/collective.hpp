// Collectives: how the ranks of one group exchange activations, candidates and tokens.
//
// A `collective` is one rank's handle on one group (tensor-parallel, pipeline, later expert and
// data parallel groups). Every rank of the group calls the same operations in the same order. Sums
// follow one fixed binary tree over the ranks, neighbour first: ((0+1)+(2+3))+((4+5)+(6+7)), so
// that a sum has the same bits at every group size whose ranks hold subtrees of the canonical grid.
// Nothing here depends on what the bytes mean.
//
// Life cycle: made for one epoch by a transport (alone, threads, simulated), used by one thread,
// dead after abort(). abort() may come from any thread and ends every wait, here and on the other
// ranks of the group, with error_code::aborted.
//
//   transport::collective& tp = *groups.tp;
//   TROUPE_TRY_VOID(tp.all_reduce_sum(epoch, partial));   // std::span<float>
#pragma once

#include "base/error.hpp"
#include "base/ids.hpp"

#include <cstddef>
#include <span>

namespace troupe::transport {

class collective {
 public:
  collective() = default;
  collective(const collective&) = delete;
  collective& operator=(const collective&) = delete;
  virtual ~collective() = default;

  [[nodiscard]] virtual int rank() const noexcept = 0;
  // Range: 1 .. 64; sums need a power of two.
  [[nodiscard]] virtual int size() const noexcept = 0;

  // Every operation below: Errors: aborted (the group was aborted, or `epoch` is not the group's),
  // invalid_argument (sizes that cannot fit together), unavailable (a peer is gone). After any but
  // a stale epoch the ranks may be out of step: abort() and make a new group. Ranks that disagree
  // are found where it costs nothing; a broadcast whose ranks name different roots may wait for
  // ever over messages. Buffers of different ranks never overlap; within one call, only where said.

  // Adds `values` over all ranks in the fixed tree; every rank ends with the sum, the same bits.
  // Cost: log2(size) rounds; small messages by recursive doubling, large by recursive halving.
  [[nodiscard]] virtual base::result<void> all_reduce_sum(base::epoch_id epoch,
                                                          std::span<float> values) = 0;

  // The same sum; rank r keeps the r-th of size() equal parts. `mine` may be that part of `values`.
  // Shape: mine.size() * size() == values.size()
  [[nodiscard]] virtual base::result<void> reduce_scatter_sum(base::epoch_id epoch,
                                                              std::span<const float> values,
                                                              std::span<float> mine) = 0;

  // Concatenates in rank order. `mine` may be its own part of `all`, here and in the next.
  // Shape: all.size() == mine.size() * size()
  [[nodiscard]] virtual base::result<void> all_gather(base::epoch_id epoch,
                                                      std::span<const std::byte> mine,
                                                      std::span<std::byte> all) = 0;

  // The same with a size per rank, known to all.
  // Shape: counts[rank()] == mine.size(), the sum of counts == all.size()
  [[nodiscard]] virtual base::result<void> all_gather_v(base::epoch_id epoch,
                                                        std::span<const std::byte> mine,
                                                        std::span<const std::size_t> counts,
                                                        std::span<std::byte> all) = 0;

  // Part p of `send` goes to rank p; `receive` gathers the parts for this rank in rank order.
  // Shape: counts in bytes, one per rank; send_counts[p] here == receive_counts[rank()] there.
  [[nodiscard]] virtual base::result<void> all_to_all_v(
      base::epoch_id epoch, std::span<const std::byte> send,
      std::span<const std::size_t> send_counts, std::span<std::byte> receive,
      std::span<const std::size_t> receive_counts) = 0;

  // Copies the root's bytes to every rank. Shape: the same size and root on all ranks.
  [[nodiscard]] virtual base::result<void> broadcast(base::epoch_id epoch, int root,
                                                     std::span<std::byte> bytes) = 0;

  // Point to point, in order per pair; the sizes must agree. send returns when `bytes` may be
  // reused, which may be only once the peer receives: two ranks do not both send first.
  [[nodiscard]] virtual base::result<void> send(base::epoch_id epoch, int to,
                                                std::span<const std::byte> bytes) = 0;
  [[nodiscard]] virtual base::result<void> receive(base::epoch_id epoch, int from,
                                                   std::span<std::byte> bytes) = 0;

  // Returns when every rank has called it.
  [[nodiscard]] virtual base::result<void> barrier(base::epoch_id epoch) = 0;

  // Ends every wait of the group and refuses all that follows. Any thread, any time.
  virtual void abort() noexcept = 0;
};

}  // namespace troupe::transport
