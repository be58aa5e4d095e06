#include "kernels/cuda/staging.cuh"

#include <algorithm>

namespace troupe::kernels::cuda {

staging::~staging() {
  for (const auto& of : slots_) {
    if (of->stream != nullptr) {
      cudaStreamSynchronize(of->stream);
      cudaStreamDestroy(of->stream);
    }
    cudaFreeHost(of->memory);
  }
}

staging::slot* staging::take() {
  std::unique_lock lock(mutex_);
  if (free_.empty() && slots_.size() < slots_max) {
    slots_.push_back(std::make_unique<slot>());
    return slots_.back().get();
  }
  freed_.wait(lock, [this] { return !free_.empty(); });
  slot* const of = free_.back();
  free_.pop_back();
  return of;
}

void staging::give_back(slot* of) {
  const std::scoped_lock lock(mutex_);
  // The longest free one is taken last: its copy has had the most time.
  free_.insert(free_.begin(), of);
  freed_.notify_one();
}

cudaError_t staging::copy(slot& through, std::byte* to, std::size_t bytes,
                          const std::function<void(std::span<std::byte>)>& fill) {
  if (through.stream == nullptr) {
    const cudaError_t made = cudaStreamCreateWithFlags(&through.stream, cudaStreamNonBlocking);
    if (made != cudaSuccess) return made;
  }
  const cudaError_t idle = cudaStreamSynchronize(through.stream);
  if (idle != cudaSuccess) return idle;
  if (through.bytes < bytes) {
    cudaFreeHost(through.memory);
    through.memory = nullptr;
    through.bytes = 0;
    const cudaError_t allocated = cudaHostAlloc(&through.memory, bytes, cudaHostAllocDefault);
    if (allocated != cudaSuccess) return allocated;
    through.bytes = bytes;
  }
  fill({static_cast<std::byte*>(through.memory), bytes});
  return cudaMemcpyAsync(to, through.memory, bytes, cudaMemcpyHostToDevice, through.stream);
}

void staging::failed(cudaError_t code) noexcept {
  cudaError_t none = cudaSuccess;
  failure_.compare_exchange_strong(none, code);
}

void staging::upload(std::byte* to, std::size_t bytes,
                     const std::function<void(std::span<std::byte>)>& fill) {
  if (bytes == 0 || failure_.load() != cudaSuccess) return;
  cudaSetDevice(ordinal_);
  slot* const through = take();
  const cudaError_t code = copy(*through, to, bytes, fill);
  if (code != cudaSuccess) failed(code);
  give_back(through);
}

base::result<void> staging::settle() {
  cudaSetDevice(ordinal_);
  const std::scoped_lock lock(mutex_);
  for (const auto& of : slots_) {
    if (of->stream == nullptr) continue;
    const cudaError_t code = cudaStreamSynchronize(of->stream);
    if (code != cudaSuccess) failed(code);
  }
  return checked(failure_.load(), "copying weights to the device");
}

}  // namespace troupe::kernels::cuda
