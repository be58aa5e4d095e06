// Devices whose memory is the host's, and groups over them: what engine/ needs of kernels::device
// to run collectives from device to device without one. Each group has a stream of its own, a
// thread that does in order what was enqueued, so that the host is ahead of it as with a GPU.
#pragma once

#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/device.hpp"

namespace troupe::engine_testing {

using kernels::device_group_options;
using kernels::device_incoming;
using kernels::device_outgoing;

// What the ranks of one group share.
struct simulated_wire {
  std::mutex mutex;
  std::condition_variable changed;
  int met = 0;
  std::map<std::pair<int, int>, std::deque<std::vector<std::byte>>> messages;  // from, to
};

// What the devices of a test share: groups by their id.
struct simulated_fabric {
  std::mutex mutex;
  std::uint8_t ids = 0;
  std::map<kernels::device_group_id, std::shared_ptr<simulated_wire>> wires;

  std::shared_ptr<simulated_wire> wire(const kernels::device_group_id& id) {
    const std::scoped_lock lock(mutex);
    auto& found = wires[id];
    if (!found) found = std::make_shared<simulated_wire>();
    return found;
  }
};

class simulated_group final : public kernels::device_group {
 public:
  simulated_group(std::shared_ptr<simulated_wire> wire, const device_group_options& options)
      : wire_(std::move(wire)), options_(options), stream_([this] { run(); }) {}
  ~simulated_group() override {
    abort();
    {
      const std::scoped_lock lock(wire_->mutex);
      closed_ = true;
    }
    wire_->changed.notify_all();
    stream_.join();
  }

  [[nodiscard]] base::result<void> meet() {
    std::unique_lock lock(wire_->mutex);
    ++wire_->met;
    wire_->changed.notify_all();
    const auto patience = std::chrono::steady_clock::now() + options_.patience;
    while (wire_->met < options_.size) {
      if (ended()) return over();
      if (std::chrono::steady_clock::now() > patience) {
        return base::fail(base::error_code::deadline_exceeded, "test", "not all ranks came");
      }
      look(lock);
    }
    return {};
  }

  [[nodiscard]] int rank() const noexcept override { return options_.rank; }
  [[nodiscard]] int size() const noexcept override { return options_.size; }

  base::result<void> exchange(std::span<const device_outgoing> out,
                              std::span<const device_incoming> in) override {
    return enqueue(
        [this, out = std::vector(out.begin(), out.end()), in = std::vector(in.begin(), in.end())] {
          for (const auto& message : out) put(message.to, message.bytes);
          for (const auto& message : in) take(message.from, message.bytes);
        });
  }
  base::result<void> all_gather(std::span<const std::byte> mine,
                                std::span<std::byte> all) override {
    return enqueue([this, mine, all] {
      for (int peer = 0; peer < size(); ++peer) put(peer, mine);
      for (int peer = 0; peer < size(); ++peer) {
        take(peer, all.subspan(static_cast<std::size_t>(peer) * mine.size(), mine.size()));
      }
    });
  }
  base::result<void> broadcast(int root, std::span<std::byte> bytes) override {
    return enqueue([this, root, bytes] {
      if (rank() != root) return take(root, bytes);
      for (int peer = 0; peer < size(); ++peer) {
        if (peer != root) put(peer, bytes);
      }
    });
  }
  base::result<void> add(std::span<float> values, std::span<const float> addend) override {
    return enqueue([values, addend] {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += addend[i];
    });
  }
  base::result<void> copy(std::span<const std::byte> from, std::span<std::byte> to) override {
    return enqueue([from, to] {
      if (!from.empty()) std::memmove(to.data(), from.data(), from.size());
    });
  }
  base::result<void> wait() override {
    std::unique_lock lock(wire_->mutex);
    while (!jobs_.empty() || busy_) look(lock);  // an end lets the stream run on
    return status();
  }
  void abort() noexcept override {
    aborted_.store(true);
    wire_->changed.notify_all();
  }

 private:
  bool ended() const { return aborted_ || (options_.over != nullptr && *options_.over); }
  static tl::unexpected<base::error> over() {
    return base::fail(base::error_code::aborted, "test", "the group was aborted");
  }
  base::result<void> status() const {
    if (ended()) return over();
    if (!failure_.empty()) return base::fail(base::error_code::unavailable, "test", failure_);
    return {};
  }
  // `over` is set without a word.
  void look(std::unique_lock<std::mutex>& lock) {
    wire_->changed.wait_for(lock, std::chrono::milliseconds(1));
  }

  base::result<void> enqueue(std::function<void()> job) {
    {
      const std::scoped_lock lock(wire_->mutex);
      if (auto good = status(); !good) return good;
      jobs_.push_back(std::move(job));
    }
    wire_->changed.notify_all();
    return {};
  }
  void run() {
    std::unique_lock lock(wire_->mutex);
    for (;;) {
      while (jobs_.empty() && !closed_) look(lock);
      if (jobs_.empty()) return;
      const auto job = std::move(jobs_.front());
      jobs_.pop_front();
      busy_ = true;
      lock.unlock();
      if (!ended()) job();
      lock.lock();
      busy_ = false;
      wire_->changed.notify_all();
    }
  }
  void put(int to, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    const std::scoped_lock lock(wire_->mutex);
    wire_->messages[{rank(), to}].emplace_back(bytes.begin(), bytes.end());
    wire_->changed.notify_all();
  }
  void take(int from, std::span<std::byte> bytes) {
    if (bytes.empty()) return;
    std::unique_lock lock(wire_->mutex);
    auto& arrived = wire_->messages[{from, rank()}];
    while (arrived.empty()) {
      if (ended()) return;
      look(lock);
    }
    if (arrived.front().size() != bytes.size()) {
      failure_ = "a message of another size";
    } else {
      std::memcpy(bytes.data(), arrived.front().data(), bytes.size());
    }
    arrived.pop_front();
  }

  const std::shared_ptr<simulated_wire> wire_;
  const device_group_options options_;
  std::atomic<bool> aborted_{false};
  std::deque<std::function<void()>> jobs_;  // these under the wire's mutex
  bool busy_ = false;
  bool closed_ = false;
  std::string failure_;
  std::thread stream_;
};

class simulated_device final : public kernels::device {
 public:
  simulated_device(simulated_fabric& fabric, kernels::device_place where)
      : fabric_(fabric), place_(std::move(where)) {}

  std::string library = "simulated 1.0";  // empty: there is none
  bool joins = true;                      // false: making a group fails
  int groups_made = 0;

  [[nodiscard]] std::string describe() const override { return "simulated"; }
  [[nodiscard]] kernels::instruction_path path() const noexcept override {
    return kernels::instruction_path::avx2;
  }
  base::result<kernels::buffer> allocate(std::size_t bytes, std::string_view purpose) override {
    return kernels::buffer::allocate(bytes, purpose);
  }
  [[nodiscard]] base::result<kernels::device_memory> memory() const override {
    return kernels::device_memory{};
  }
  void upload(std::byte* to, std::size_t bytes,
              const std::function<void(std::span<std::byte>)>& fill) override {
    fill({to, bytes});
  }
  base::result<void> settle() override { return {}; }
  base::result<std::unique_ptr<kernels::queue>> make_queue() override {
    return std::make_unique<kernels::queue>();
  }
  std::unique_ptr<kernels::ops> make_ops() override { return nullptr; }
  base::result<std::string> group_library() override {
    if (!library.empty()) return library;
    return base::fail(base::error_code::failed_precondition, "test", "no library");
  }
  [[nodiscard]] base::result<kernels::device_place> place() const override { return place_; }
  base::result<kernels::device_group_id> make_group_id() override {
    const std::scoped_lock lock(fabric_.mutex);
    return kernels::device_group_id{++fabric_.ids};
  }
  base::result<std::unique_ptr<kernels::device_group>> make_group(
      kernels::queue&, const device_group_options& options) override {
    if (!joins) return base::fail(base::error_code::unavailable, "test", "it does not join");
    device_group_options here = options;
    here.patience = std::chrono::milliseconds(200);
    auto made = std::make_unique<simulated_group>(fabric_.wire(options.id), here);
    TROUPE_TRY_VOID(made->meet());
    ++groups_made;
    return std::unique_ptr<kernels::device_group>(std::move(made));
  }
  base::result<kernels::device_peaks> measure_peaks() override { return kernels::device_peaks{}; }

 private:
  simulated_fabric& fabric_;
  const kernels::device_place place_;
};

}  // namespace troupe::engine_testing
