// A stream of one GPU and the memory that steps go through.
//
// Host spans that ops are given become device addresses here: step memory has a mirror, filled by
// one copy in commit_step(); constants (norm weights, biases, head maps) are uploaded once and
// compared on every use; anything else is copied as it comes, which a recording refuses.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/attention/attention.cuh"
#include "kernels/cuda/cuda_error.cuh"
#include "kernels/cuda/fusion.cuh"
#include "kernels/queue.hpp"

namespace troupe::kernels::cuda {

// Pinned host memory and as much device memory: what is written to one is copied to the other.
struct mirrored_memory {
  std::byte* host = nullptr;
  std::byte* device = nullptr;
  std::size_t bytes = 0;

  [[nodiscard]] bool holds(const void* at, std::size_t count) const noexcept {
    const auto* const begin = static_cast<const std::byte*>(at);
    return host != nullptr && begin >= host && begin + count <= host + bytes;
  }
};

enum class scratch : std::uint8_t { matmul, attention, vocabulary, count };

// What can hold a stream up for ever: kernels that wait for other ranks. Looked at while the host
// waits; after an error the stream runs on by itself.
class stream_holder {
 public:
  virtual base::result<void> check() = 0;
  // Another holder has failed: whoever is first in the stream, none may hold it up any more.
  virtual void let_go(const base::error& cause) noexcept = 0;

 protected:
  ~stream_holder() = default;
};

// Between two looks at what goes on elsewhere: at first at once, then with rests, so that a long
// wait costs little of the CPU time by which the supervisor tells a wedged rank.
void rest_before(int look);

class cuda_queue final : public queue {
 public:
  [[nodiscard]] static base::result<std::unique_ptr<cuda_queue>> make(int ordinal);
  ~cuda_queue() override;

  [[nodiscard]] base::result<void> synchronize() override;
  void hand_over() override {}  // the device's collective reads through this queue, in its order
  [[nodiscard]] base::result<std::span<std::byte>> begin_step(std::size_t bytes) override;
  void commit_step(std::span<const std::span<const sequence_rows>> groups) override;
  [[nodiscard]] base::result<std::span<std::byte>> result_memory(std::size_t bytes) override;
  [[nodiscard]] base::result<void> read(const std::byte* from, std::span<std::byte> to) override;
  [[nodiscard]] base::result<void> write(std::span<const std::byte> from, std::byte* to) override;
  [[nodiscard]] bool can_record() const noexcept override { return true; }
  [[nodiscard]] base::result<void> begin_recording() override;
  [[nodiscard]] base::result<std::unique_ptr<recording>> end_recording() override;

  // For the ops. A failure is kept and told by the next call that returns a result.
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }
  [[nodiscard]] fusion& pending() noexcept { return pending_; }
  void note(cudaError_t code, const char* doing) noexcept;
  // Device address of host bytes that this step's ops read.
  [[nodiscard]] const void* step_data(const void* host, std::size_t bytes);
  // Device address of a constant.
  [[nodiscard]] const void* constant(const void* host, std::size_t bytes);
  // The translated sequences of a group, by their host address; see device_sequence.
  [[nodiscard]] const device_sequence* sequences(std::span<const sequence_rows> host);
  // Device memory that ops of one kind share, zeroed when it was allocated.
  [[nodiscard]] std::span<std::byte> workspace(scratch of, std::size_t bytes);
  // While there are holders, the host waits by looking, and the error of one ends the wait; it
  // stays until the holder goes.
  void attach(stream_holder& holder) { holders_.push_back(&holder); }
  void detach(stream_holder& holder) { std::erase(holders_, &holder); }
  void let_go(const base::error& cause) noexcept {
    for (stream_holder* const holder : holders_) holder->let_go(cause);
  }
  // Waits for an event of this stream. Errors: as synchronize().
  [[nodiscard]] base::result<void> wait_for(cudaEvent_t event);
  // Enqueues a copy from the device to host memory that lies in result memory; elsewhere waits.
  void deliver(const void* device, void* host, std::size_t bytes);

 private:
  explicit cuda_queue(int ordinal) : ordinal_(ordinal) {}
  [[nodiscard]] base::result<void> status() const;
  template <class Query>
  [[nodiscard]] base::result<void> look_until(const Query& done);
  [[nodiscard]] base::result<void> wait_for_stream();
  [[nodiscard]] cudaError_t grow(mirrored_memory& memory, std::size_t bytes, bool with_device);
  [[nodiscard]] const void* upload(const void* host, std::size_t bytes);
  [[nodiscard]] device_sequence translated(const sequence_rows& rows);
  void keep(void* device, void* host);

  struct constant_copy {
    std::vector<std::byte> host;
    void* device = nullptr;
  };

  const int ordinal_;
  cudaStream_t stream_ = nullptr;
  fusion pending_{*this};
  cudaError_t failure_ = cudaSuccess;
  std::string failed_doing_;
  std::vector<stream_holder*> holders_;
  bool recording_ = false;
  std::uint64_t generation_ = 0;  // of the memory that a recording refers to
  mirrored_memory step_;
  std::size_t step_used_ = 0;
  mirrored_memory results_;  // host only
  mirrored_memory bounce_;   // host only
  mirrored_memory transient_;
  std::size_t transient_used_ = 0;
  std::unordered_map<const void*, const device_sequence*> sequences_;
  std::unordered_map<const void*, constant_copy> constants_;
  std::span<std::byte> workspaces_[static_cast<std::size_t>(scratch::count)];
  std::vector<void*> device_memory_;  // freed with the queue: recordings may refer to all of it
  std::vector<void*> host_memory_;
};

}  // namespace troupe::kernels::cuda
