// Sums through boards in the shared segment; all else of a group goes over messages. Internal to
// the shared-memory data plane.
//
// Each rank of a group has two boards, used in turn. One step: write your board, count it, wait
// until all have counted theirs, read theirs. A rank that is one step ahead writes its other board;
// it cannot be two ahead, since all count in each step, and so nobody writes what another reads.
// A short sum is one step, in which every rank lays out all its values and adds all boards. A long
// one takes two for each part that fits a board: every rank adds one slice of all boards, then lays
// out that sum for the others. Two ranks send each other short sums as messages, which is as quick
// as it gets. All of them add in the tree of tree_sum.hpp: the same bits as everywhere.
#pragma once

#include "transport/arguments.hpp"
#include "transport/collective.hpp"
#include "transport/shared_memory_peers.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace troupe::transport {

// Which group of the rank, and who is in it.
struct shared_group_seat {
  base::epoch_id epoch;
  int group = 0;             // world_group, tp_group or pp_group
  std::vector<int> members;  // ranks of the world
};

class shared_collective final : public collective {
 public:
  // `messages` is the same group over `peers`.
  shared_collective(std::unique_ptr<collective> messages, std::shared_ptr<shared_peers> peers,
                    shared_group_seat seat);

  int rank() const noexcept override { return place_.rank; }
  int size() const noexcept override { return place_.size; }

  base::result<void> all_reduce_sum(base::epoch_id epoch, std::span<float> values) override;

  base::result<void> reduce_scatter_sum(base::epoch_id epoch, std::span<const float> values,
                                        std::span<float> mine) override {
    return messages_->reduce_scatter_sum(epoch, values, mine);
  }
  base::result<void> all_gather(base::epoch_id epoch, std::span<const std::byte> mine,
                                std::span<std::byte> all) override {
    return messages_->all_gather(epoch, mine, all);
  }
  base::result<void> all_gather_v(base::epoch_id epoch, std::span<const std::byte> mine,
                                  std::span<const std::size_t> counts,
                                  std::span<std::byte> all) override {
    return messages_->all_gather_v(epoch, mine, counts, all);
  }
  base::result<void> all_to_all_v(base::epoch_id epoch, std::span<const std::byte> send,
                                  std::span<const std::size_t> send_counts,
                                  std::span<std::byte> receive,
                                  std::span<const std::size_t> receive_counts) override {
    return messages_->all_to_all_v(epoch, send, send_counts, receive, receive_counts);
  }
  base::result<void> broadcast(base::epoch_id epoch, int root,
                               std::span<std::byte> bytes) override {
    return messages_->broadcast(epoch, root, bytes);
  }
  base::result<void> send(base::epoch_id epoch, int to, std::span<const std::byte> bytes) override {
    return messages_->send(epoch, to, bytes);
  }
  base::result<void> receive(base::epoch_id epoch, int from, std::span<std::byte> bytes) override {
    return messages_->receive(epoch, from, bytes);
  }
  base::result<void> barrier(base::epoch_id epoch) override { return messages_->barrier(epoch); }
  void abort() noexcept override { messages_->abort(); }

 private:
  // What is on a board; the same on all ranks in the same step.
  struct board_header {
    std::uint64_t bytes = 0;  // of the whole sum
    std::uint64_t begin = 0;  // where in it this part begins
    std::uint64_t phase = 0;
    friend bool operator==(const board_header&, const board_header&) = default;
  };

  base::result<void> sum_whole(std::span<float> values);
  base::result<void> sum_in_slices(std::span<float> values);
  // values[i] = the tree over all boards, with values[i] in place of the own board, from `begin`.
  void add_boards(std::span<float> values, std::size_t begin) const;
  void fetch(std::size_t begin, std::size_t count) const noexcept;
  // Counts the board of this step and waits for the others'.
  base::result<void> meet(const board_header& header);
  base::result<void> wait_for(int member, std::uint64_t step);
  base::result<void> check_header(int place, const board_header& mine) const;
  // The floats of a rank's board of the current step (before meet: of the next).
  [[nodiscard]] float* board(int place, std::uint64_t step) const noexcept;
  [[nodiscard]] float* my_next_board() const noexcept;

  const std::unique_ptr<collective> messages_;
  const std::shared_ptr<shared_peers> peers_;
  const shared_group_seat seat_;
  const group_place place_;
  std::uint64_t& posted_;
};

}  // namespace troupe::transport
