#include "transport/alone.hpp"

#include "transport/arguments.hpp"

#include <atomic>

namespace troupe::transport {
namespace {

class alone final : public collective {
 public:
  explicit alone(base::epoch_id epoch) : epoch_(epoch) {}

  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }

  base::result<void> all_reduce_sum(base::epoch_id epoch, std::span<float>) override {
    return enter(epoch);
  }

  base::result<void> reduce_scatter_sum(base::epoch_id epoch, std::span<const float> values,
                                        std::span<float> mine) override {
    TROUPE_TRY_VOID(enter(epoch));
    TROUPE_TRY_VOID(check_reduce_scatter(place, values, mine));
    copy_bytes(std::as_bytes(values), std::as_writable_bytes(mine));
    return {};
  }

  base::result<void> all_gather(base::epoch_id epoch, std::span<const std::byte> mine,
                                std::span<std::byte> all) override {
    TROUPE_TRY_VOID(enter(epoch));
    TROUPE_TRY_VOID(check_all_gather(place, mine, all));
    copy_bytes(mine, all);
    return {};
  }

  base::result<void> all_gather_v(base::epoch_id epoch, std::span<const std::byte> mine,
                                  std::span<const std::size_t> counts,
                                  std::span<std::byte> all) override {
    TROUPE_TRY_VOID(enter(epoch));
    TROUPE_TRY_VOID(check_all_gather_v(place, mine, counts, all));
    copy_bytes(mine, all);
    return {};
  }

  base::result<void> all_to_all_v(base::epoch_id epoch, std::span<const std::byte> send,
                                  std::span<const std::size_t> send_counts,
                                  std::span<std::byte> receive,
                                  std::span<const std::size_t> receive_counts) override {
    TROUPE_TRY_VOID(enter(epoch));
    TROUPE_TRY_VOID(check_all_to_all_v(place, send, send_counts, receive, receive_counts));
    copy_bytes(send, receive);
    return {};
  }

  base::result<void> broadcast(base::epoch_id epoch, int root, std::span<std::byte>) override {
    TROUPE_TRY_VOID(enter(epoch));
    return check_root(place, root);
  }

  base::result<void> send(base::epoch_id epoch, int to, std::span<const std::byte>) override {
    TROUPE_TRY_VOID(enter(epoch));
    return check_peer(place, to);  // always refused: nobody else is here
  }

  base::result<void> receive(base::epoch_id epoch, int from, std::span<std::byte>) override {
    TROUPE_TRY_VOID(enter(epoch));
    return check_peer(place, from);
  }

  base::result<void> barrier(base::epoch_id epoch) override { return enter(epoch); }

  void abort() noexcept override { aborted_.store(true, std::memory_order_release); }

 private:
  static constexpr group_place place{.rank = 0, .size = 1};

  base::result<void> enter(base::epoch_id epoch) const {
    TROUPE_TRY_VOID(check_epoch(epoch_, epoch));
    if (aborted_.load(std::memory_order_acquire)) return fail_aborted();
    return {};
  }

  const base::epoch_id epoch_;
  std::atomic<bool> aborted_{false};
};

}  // namespace

std::unique_ptr<collective> make_alone(base::epoch_id epoch) {
  return std::make_unique<alone>(epoch);
}

}  // namespace troupe::transport
