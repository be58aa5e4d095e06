#include "engine/device_collective.hpp"

#include "base/check.hpp"

namespace troupe::engine {
namespace {

using bytes_view = std::span<const std::byte>;

class device_collective final : public transport::collective {
 public:
  device_collective(transport::collective& inner, kernels::queue& queue)
      : inner_(inner), queue_(queue) {}

  [[nodiscard]] int rank() const noexcept override { return inner_.rank(); }
  [[nodiscard]] int size() const noexcept override { return inner_.size(); }

  base::result<void> all_reduce_sum(base::epoch_id epoch, std::span<float> values) override {
    if (size() == 1) return inner_.all_reduce_sum(epoch, {});
    const auto device = std::as_writable_bytes(values);
    TROUPE_TRY(host, fetch(device, send_));
    TROUPE_TRY_VOID(inner_.all_reduce_sum(
        epoch, {reinterpret_cast<float*>(host.data()), host.size() / sizeof(float)}));
    return queue_.write(host, device.data());
  }

  base::result<void> reduce_scatter_sum(base::epoch_id epoch, std::span<const float> values,
                                        std::span<float> mine) override {
    TROUPE_TRY(all, fetch(std::as_bytes(values), send_));
    receive_.resize(mine.size_bytes());
    TROUPE_TRY_VOID(inner_.reduce_scatter_sum(
        epoch, {reinterpret_cast<const float*>(all.data()), values.size()},
        {reinterpret_cast<float*>(receive_.data()), mine.size()}));
    return queue_.write(receive_, std::as_writable_bytes(mine).data());
  }

  base::result<void> all_gather(base::epoch_id epoch, bytes_view mine,
                                std::span<std::byte> all) override {
    TROUPE_TRY(own, fetch(mine, send_));
    receive_.resize(all.size());
    TROUPE_TRY_VOID(inner_.all_gather(epoch, own, receive_));
    return queue_.write(receive_, all.data());
  }

  base::result<void> all_gather_v(base::epoch_id epoch, bytes_view mine,
                                  std::span<const std::size_t> counts,
                                  std::span<std::byte> all) override {
    TROUPE_TRY(own, fetch(mine, send_));
    receive_.resize(all.size());
    TROUPE_TRY_VOID(inner_.all_gather_v(epoch, own, counts, receive_));
    return queue_.write(receive_, all.data());
  }

  base::result<void> all_to_all_v(base::epoch_id epoch, bytes_view send,
                                  std::span<const std::size_t> send_counts,
                                  std::span<std::byte> receive,
                                  std::span<const std::size_t> receive_counts) override {
    TROUPE_TRY(own, fetch(send, send_));
    receive_.resize(receive.size());
    TROUPE_TRY_VOID(inner_.all_to_all_v(epoch, own, send_counts, receive_, receive_counts));
    return queue_.write(receive_, receive.data());
  }

  base::result<void> broadcast(base::epoch_id epoch, int root,
                               std::span<std::byte> bytes) override {
    TROUPE_TRY(host, fetch(bytes, send_));
    TROUPE_TRY_VOID(inner_.broadcast(epoch, root, host));
    return queue_.write(host, bytes.data());
  }

  base::result<void> send(base::epoch_id epoch, int to, bytes_view bytes) override {
    TROUPE_TRY(host, fetch(bytes, send_));
    return inner_.send(epoch, to, host);
  }
  base::result<void> receive(base::epoch_id epoch, int from, std::span<std::byte> bytes) override {
    receive_.resize(bytes.size());
    TROUPE_TRY_VOID(inner_.receive(epoch, from, receive_));
    return queue_.write(receive_, bytes.data());
  }

  base::result<void> barrier(base::epoch_id epoch) override { return inner_.barrier(epoch); }
  void abort() noexcept override { inner_.abort(); }

 private:
  // The device's bytes in `into`, which only grows.
  base::result<std::span<std::byte>> fetch(bytes_view device, std::vector<std::byte>& into) {
    if (into.size() < device.size()) into.resize(device.size());
    const std::span<std::byte> host = std::span(into).first(device.size());
    TROUPE_TRY_VOID(queue_.read(device.data(), host));
    return host;
  }

  transport::collective& inner_;
  kernels::queue& queue_;
  std::vector<std::byte> send_;
  std::vector<std::byte> receive_;
};

}  // namespace

std::unique_ptr<transport::collective> through_host(transport::collective& inner,
                                                    kernels::queue& queue) {
  return std::make_unique<device_collective>(inner, queue);
}

}  // namespace troupe::engine
