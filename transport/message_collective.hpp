// All collectives over any `point_to_point`: the algorithms that shared memory, TLS and UCX share.
//
// Sums: recursive doubling, neighbour first, below `halving_bytes_min`; recursive halving and
// doubling in the same order above (sum_rounds.hpp). Both add in the tree of tree_sum.hpp: the same
// bits.
// A failed call (but one for a stale epoch) aborts the group, since its ranks are out of step: no
// rank is left waiting for one that gave up.
//
//   auto tp = std::make_unique<message_collective>(std::move(peers), epoch);
#pragma once

#include "transport/collective.hpp"
#include "transport/point_to_point.hpp"
#include "transport/sum_rounds.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace troupe::transport {

struct message_options {
  // From this size on a sum halves its data before it exchanges it. With p ranks, latency a and
  // b bytes/s: doubling costs log2(p) (a + n/b), halving 2 log2(p) a + 2 n/b (p-1)/p; they meet at
  // n = 2.4 a b for p = 8, 4 a b for p = 4, never for p = 2 (where halving only saves additions).
  // 5 us and 4 GB/s (TCP on one host) give 48 and 80 KB. Change it with the network.
  std::size_t halving_bytes_min = std::size_t{64} << 10;
};

class message_collective final : public collective {
 public:
  message_collective(std::unique_ptr<point_to_point> peers, base::epoch_id epoch,
                     message_options options = {});

  int rank() const noexcept override { return place_.rank; }
  int size() const noexcept override { return place_.size; }

  base::result<void> all_reduce_sum(base::epoch_id epoch, std::span<float> values) override;
  base::result<void> reduce_scatter_sum(base::epoch_id epoch, std::span<const float> values,
                                        std::span<float> mine) override;
  base::result<void> all_gather(base::epoch_id epoch, std::span<const std::byte> mine,
                                std::span<std::byte> all) override;
  base::result<void> all_gather_v(base::epoch_id epoch, std::span<const std::byte> mine,
                                  std::span<const std::size_t> counts,
                                  std::span<std::byte> all) override;
  base::result<void> all_to_all_v(base::epoch_id epoch, std::span<const std::byte> send,
                                  std::span<const std::size_t> send_counts,
                                  std::span<std::byte> receive,
                                  std::span<const std::size_t> receive_counts) override;
  base::result<void> broadcast(base::epoch_id epoch, int root, std::span<std::byte> bytes) override;
  base::result<void> send(base::epoch_id epoch, int to, std::span<const std::byte> bytes) override;
  base::result<void> receive(base::epoch_id epoch, int from, std::span<std::byte> bytes) override;
  base::result<void> barrier(base::epoch_id epoch) override;
  void abort() noexcept override;

 private:
  base::result<void> enter(base::epoch_id epoch) const;
  base::result<void> settle(base::result<void> outcome);
  message_tag tag(operation kind, int round) const noexcept;

  base::result<void> sum(operation kind, std::span<float> values,
                         const std::vector<sum_round>& rounds);
  base::result<void> gather_parts(operation kind, std::span<const std::size_t> offsets,
                                  std::span<std::byte> all);
  base::result<void> all_to_all_parts(std::span<const std::byte> send,
                                      std::span<const std::size_t> send_counts,
                                      std::span<std::byte> receive,
                                      std::span<const std::size_t> receive_counts);
  base::result<void> broadcast_from(int root, std::span<std::byte> bytes);

  const std::unique_ptr<point_to_point> peers_;
  const base::epoch_id epoch_;
  const message_options options_;
  const group_place place_;
  std::atomic<bool> aborted_{false};
  std::uint32_t number_ = 0;     // collective operations begun
  std::vector<float> received_;  // grows to the largest message, freed with the group
  std::vector<float> work_;
};

}  // namespace troupe::transport
