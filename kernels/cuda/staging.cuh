// Pinned memory through which weights reach the device: several slots, each with a stream, so that
// one thread fills while another's copy runs. Any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "kernels/cuda/cuda_error.cuh"

namespace troupe::kernels::cuda {

class staging {
 public:
  // As many copies in flight as keep a PCIe 5 link busy with pieces of 1 MiB (64 GB/s x 0.2 ms of
  // filling); more threads than this wait for a slot.
  static constexpr std::size_t slots_max = 16;

  explicit staging(int ordinal) : ordinal_(ordinal) {}
  staging(const staging&) = delete;
  staging& operator=(const staging&) = delete;
  ~staging();

  void upload(std::byte* to, std::size_t bytes,
              const std::function<void(std::span<std::byte>)>& fill);
  [[nodiscard]] base::result<void> settle();

 private:
  struct slot {
    void* memory = nullptr;
    std::size_t bytes = 0;
    cudaStream_t stream = nullptr;
  };
  [[nodiscard]] slot* take();
  void give_back(slot* of);
  [[nodiscard]] cudaError_t copy(slot& through, std::byte* to, std::size_t bytes,
                                 const std::function<void(std::span<std::byte>)>& fill);
  void failed(cudaError_t code) noexcept;

  const int ordinal_;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<std::unique_ptr<slot>> slots_;
  std::vector<slot*> free_;
  std::atomic<cudaError_t> failure_ = cudaSuccess;  // the first
};

}  // namespace troupe::kernels::cuda
