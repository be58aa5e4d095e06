#include "transport/watched.hpp"

#include <memory>
#include <utility>

namespace troupe::transport {
namespace {

class watched final : public collective {
 public:
  watched(std::unique_ptr<collective> group, base::rank_vitals& vitals)
      : group_(std::move(group)), vitals_(vitals) {}

  int rank() const noexcept override { return group_->rank(); }
  int size() const noexcept override { return group_->size(); }

  base::result<void> all_reduce_sum(base::epoch_id epoch, std::span<float> values) override {
    const base::waiting_scope mark(vitals_);
    return group_->all_reduce_sum(epoch, values);
  }
  base::result<void> reduce_scatter_sum(base::epoch_id epoch, std::span<const float> values,
                                        std::span<float> mine) override {
    const base::waiting_scope mark(vitals_);
    return group_->reduce_scatter_sum(epoch, values, mine);
  }
  base::result<void> all_gather(base::epoch_id epoch, std::span<const std::byte> mine,
                                std::span<std::byte> all) override {
    const base::waiting_scope mark(vitals_);
    return group_->all_gather(epoch, mine, all);
  }
  base::result<void> all_gather_v(base::epoch_id epoch, std::span<const std::byte> mine,
                                  std::span<const std::size_t> counts,
                                  std::span<std::byte> all) override {
    const base::waiting_scope mark(vitals_);
    return group_->all_gather_v(epoch, mine, counts, all);
  }
  base::result<void> all_to_all_v(base::epoch_id epoch, std::span<const std::byte> send,
                                  std::span<const std::size_t> send_counts,
                                  std::span<std::byte> receive,
                                  std::span<const std::size_t> receive_counts) override {
    const base::waiting_scope mark(vitals_);
    return group_->all_to_all_v(epoch, send, send_counts, receive, receive_counts);
  }
  base::result<void> broadcast(base::epoch_id epoch, int root,
                               std::span<std::byte> bytes) override {
    const base::waiting_scope mark(vitals_);
    return group_->broadcast(epoch, root, bytes);
  }
  base::result<void> send(base::epoch_id epoch, int to, std::span<const std::byte> bytes) override {
    const base::waiting_scope mark(vitals_);
    return group_->send(epoch, to, bytes);
  }
  base::result<void> receive(base::epoch_id epoch, int from, std::span<std::byte> bytes) override {
    const base::waiting_scope mark(vitals_);
    return group_->receive(epoch, from, bytes);
  }
  base::result<void> barrier(base::epoch_id epoch) override {
    const base::waiting_scope mark(vitals_);
    return group_->barrier(epoch);
  }
  void abort() noexcept override { group_->abort(); }

 private:
  const std::unique_ptr<collective> group_;
  base::rank_vitals& vitals_;
};

}  // namespace

rank_groups watch(rank_groups groups, base::rank_vitals& vitals) {
  const auto wrap = [&](std::unique_ptr<collective> group) -> std::unique_ptr<collective> {
    if (!group) return nullptr;
    return std::make_unique<watched>(std::move(group), vitals);
  };
  return {.world = wrap(std::move(groups.world)),
          .tp = wrap(std::move(groups.tp)),
          .pp = wrap(std::move(groups.pp))};
}

}  // namespace troupe::transport
