#include "kernels/cuda/cuda_queue.cuh"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/check.hpp"

namespace troupe::kernels::cuda {
namespace {

constexpr std::size_t align_bytes = 256;         // of a cudaMalloc'ed piece
constexpr std::size_t step_bytes_min = 1 << 20;  // a step of a few hundred tokens never grows it
constexpr std::size_t transient_bytes_min = 1 << 20;

constexpr std::size_t rounded(std::size_t bytes, std::size_t to) noexcept {
  return (bytes + to - 1) / to * to;
}

class cuda_recording final : public recording {
 public:
  cuda_recording(cudaGraphExec_t graph, cuda_queue& queue, const std::uint64_t& generation)
      : graph_(graph), queue_(queue), now_(generation), made_(generation) {}
  ~cuda_recording() override { cudaGraphExecDestroy(graph_); }

  [[nodiscard]] bool current() const noexcept override { return now_ == made_; }
  [[nodiscard]] base::result<void> replay() override {
    return checked(cudaGraphLaunch(graph_, queue_.stream()), "replaying a step");
  }

 private:
  cudaGraphExec_t graph_;
  cuda_queue& queue_;
  const std::uint64_t& now_;
  const std::uint64_t made_;
};

}  // namespace

base::result<std::unique_ptr<cuda_queue>> cuda_queue::make(int ordinal) {
  TROUPE_TRY_VOID(checked(cudaSetDevice(ordinal), "choosing the device"));
  std::unique_ptr<cuda_queue> made(new cuda_queue(ordinal));
  TROUPE_TRY_VOID(
      checked(cudaStreamCreateWithFlags(&made->stream_, cudaStreamNonBlocking), "making a stream"));
  return made;
}

cuda_queue::~cuda_queue() {
  cudaSetDevice(ordinal_);
  if (stream_ != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  for (void* const memory : device_memory_) cudaFree(memory);
  for (void* const memory : host_memory_) cudaFreeHost(memory);
}

void cuda_queue::note(cudaError_t code, const char* doing) noexcept {
  if (code == cudaSuccess || failure_ != cudaSuccess) return;
  failure_ = code;
  failed_doing_ = doing;
}

base::result<void> cuda_queue::status() const {
  if (failure_ == cudaSuccess) return {};
  return cuda_failure(failure_, failed_doing_);
}

base::result<void> cuda_queue::synchronize() {
  pending_.flush();
  return wait_for_stream();
}

void rest_before(int look) {
  constexpr int looks_at_once = 2000;  // a few ms: longer than most decode steps
  if (look >= looks_at_once) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

template <class Query>
base::result<void> cuda_queue::look_until(const Query& done) {
  constexpr int looks_a_check = 16;
  for (int look = 0;; ++look) {
    if (look % looks_a_check == 0) {
      for (stream_holder* const holder : holders_) TROUPE_TRY_VOID(holder->check());
    }
    const cudaError_t code = done();
    if (code != cudaErrorNotReady) {
      note(code, "waiting for a step");
      return status();
    }
    rest_before(look);
  }
}

base::result<void> cuda_queue::wait_for_stream() {
  if (!holders_.empty()) return look_until([&] { return cudaStreamQuery(stream_); });
  note(cudaStreamSynchronize(stream_), "waiting for a step");
  return status();
}

base::result<void> cuda_queue::wait_for(cudaEvent_t event) {
  return look_until([&] { return cudaEventQuery(event); });
}

void cuda_queue::keep(void* device, void* host) {
  if (device != nullptr) device_memory_.push_back(device);
  if (host != nullptr) host_memory_.push_back(host);
}

cudaError_t cuda_queue::grow(mirrored_memory& memory, std::size_t bytes, bool with_device) {
  if (memory.bytes >= bytes) return cudaSuccess;
  TROUPE_CHECK(!recording_);
  const std::size_t wanted = std::max(rounded(bytes, align_bytes), 2 * memory.bytes);
  void* host = nullptr;
  void* device = nullptr;
  cudaError_t code = cudaHostAlloc(&host, wanted, cudaHostAllocDefault);
  if (code == cudaSuccess && with_device) code = cudaMalloc(&device, wanted);
  keep(device, host);
  if (code != cudaSuccess) return code;
  memory = {static_cast<std::byte*>(host), static_cast<std::byte*>(device), wanted};
  ++generation_;
  return cudaSuccess;
}

base::result<std::span<std::byte>> cuda_queue::begin_step(std::size_t bytes) {
  TROUPE_TRY_VOID(checked(cudaSetDevice(ordinal_), "choosing the device"));
  TROUPE_TRY_VOID(synchronize());  // the step before may still read its inputs
  transient_used_ = 0;
  sequences_.clear();
  // As much again for the translated sequences, which are no larger than those in `bytes`.
  const std::size_t inputs = rounded(bytes, align_bytes);
  TROUPE_TRY_VOID(checked(grow(step_, std::max(2 * inputs, step_bytes_min), true),
                          "reserving memory for a step's inputs"));
  step_used_ = inputs;
  return std::span(step_.host, inputs);
}

device_sequence cuda_queue::translated(const sequence_rows& rows) {
  const std::span<const std::int32_t> table = rows.block_table;
  return {.first_row = rows.first_row,
          .rows = rows.rows,
          .first_position = rows.first_position,
          .table = static_cast<const std::int32_t*>(step_data(table.data(), table.size_bytes())),
          .table_blocks = static_cast<std::int64_t>(table.size())};
}

void cuda_queue::commit_step(std::span<const std::span<const sequence_rows>> groups) {
  static_assert(sizeof(device_sequence) <= sizeof(sequence_rows));  // begin_step() counts on it
  for (const std::span<const sequence_rows> group : groups) {
    const std::size_t bytes = group.size() * sizeof(device_sequence);
    TROUPE_CHECK(step_used_ + bytes <= step_.bytes);
    auto* const host = reinterpret_cast<device_sequence*>(step_.host + step_used_);
    for (std::size_t i = 0; i < group.size(); ++i) host[i] = translated(group[i]);
    sequences_[group.data()] = reinterpret_cast<const device_sequence*>(step_.device + step_used_);
    step_used_ += rounded(bytes, align_bytes);
  }
  step_used_ = std::min(step_used_, step_.bytes);
  note(cudaMemcpyAsync(step_.device, step_.host, step_used_, cudaMemcpyHostToDevice, stream_),
       "copying a step's inputs");
}

const device_sequence* cuda_queue::sequences(std::span<const sequence_rows> host) {
  const auto found = sequences_.find(host.data());
  if (found != sequences_.end()) return found->second;
  std::vector<device_sequence> made;
  for (const sequence_rows& rows : host) made.push_back(translated(rows));
  return static_cast<const device_sequence*>(
      upload(made.data(), made.size() * sizeof(device_sequence)));
}

const void* cuda_queue::step_data(const void* host, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  if (!step_.holds(host, bytes)) return upload(host, bytes);
  return step_.device + (static_cast<const std::byte*>(host) - step_.host);
}

const void* cuda_queue::upload(const void* host, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  TROUPE_CHECK(!recording_);
  const std::size_t taken = rounded(bytes, align_bytes);
  if (transient_used_ + taken > transient_.bytes) {
    // The pieces handed out so far stay where they are: a new memory begins.
    transient_used_ = 0;
    const std::size_t wanted = std::max({taken, 2 * transient_.bytes, transient_bytes_min});
    const cudaError_t code = grow(transient_, wanted, true);
    note(code, "reserving memory for small tables");
    if (code != cudaSuccess) return nullptr;
  }
  std::byte* const pinned = transient_.host + transient_used_;
  std::byte* const device = transient_.device + transient_used_;
  transient_used_ += taken;
  std::memcpy(pinned, host, bytes);
  note(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream_),
       "copying a small table");
  return device;
}

const void* cuda_queue::constant(const void* host, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const auto found = constants_.find(host);
  if (found != constants_.end() && found->second.host.size() == bytes &&
      std::memcmp(found->second.host.data(), host, bytes) == 0) {
    return found->second.device;
  }
  TROUPE_CHECK(!recording_);
  void* device = nullptr;
  cudaError_t code = cudaMalloc(&device, bytes);
  keep(device, nullptr);
  // From pageable memory: the bytes are taken before the call returns.
  if (code == cudaSuccess) {
    code = cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_);
  }
  note(code, "copying a constant");
  const auto* const begin = static_cast<const std::byte*>(host);
  constants_[host] = {std::vector<std::byte>(begin, begin + bytes), device};
  return device;
}

std::span<std::byte> cuda_queue::workspace(scratch of, std::size_t bytes) {
  std::span<std::byte>& memory = workspaces_[static_cast<std::size_t>(of)];
  if (memory.size() >= bytes) return memory;
  TROUPE_CHECK(!recording_);
  const std::size_t wanted = std::max(rounded(bytes, align_bytes), 2 * memory.size());
  void* device = nullptr;
  cudaError_t code = cudaMalloc(&device, wanted);
  keep(device, nullptr);
  if (code == cudaSuccess) code = cudaMemsetAsync(device, 0, wanted, stream_);
  note(code, "reserving a kernel's workspace");
  if (code != cudaSuccess) return {};
  memory = {static_cast<std::byte*>(device), wanted};
  return memory;
}

base::result<std::span<std::byte>> cuda_queue::result_memory(std::size_t bytes) {
  TROUPE_TRY_VOID(
      checked(grow(results_, std::max(bytes, align_bytes), false), "reserving memory for results"));
  return std::span(results_.host, results_.bytes);
}

void cuda_queue::deliver(const void* device, void* host, std::size_t bytes) {
  if (bytes == 0) return;
  note(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "copying results");
  if (results_.holds(host, bytes)) return;
  TROUPE_CHECK(!recording_);
  static_cast<void>(wait_for_stream());  // synchronize() says what went wrong
}

base::result<void> cuda_queue::read(const std::byte* from, std::span<std::byte> to) {
  TROUPE_CHECK(!recording_);
  pending_.flush();
  note(grow(bounce_, to.size(), false), "reserving memory for a copy");
  TROUPE_TRY_VOID(status());
  if (to.empty()) return {};
  note(cudaMemcpyAsync(bounce_.host, from, to.size(), cudaMemcpyDeviceToHost, stream_),
       "copying from the device");
  TROUPE_TRY_VOID(synchronize());
  std::memcpy(to.data(), bounce_.host, to.size());
  return {};
}

base::result<void> cuda_queue::write(std::span<const std::byte> from, std::byte* to) {
  TROUPE_CHECK(!recording_);
  pending_.flush();
  note(grow(bounce_, from.size(), false), "reserving memory for a copy");
  TROUPE_TRY_VOID(status());
  if (from.empty()) return {};
  std::memcpy(bounce_.host, from.data(), from.size());
  note(cudaMemcpyAsync(to, bounce_.host, from.size(), cudaMemcpyHostToDevice, stream_),
       "copying to the device");
  return synchronize();  // the next copy may use the same memory
}

base::result<void> cuda_queue::begin_recording() {
  pending_.flush();
  TROUPE_TRY_VOID(status());
  TROUPE_TRY_VOID(checked(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                          "recording a step"));
  recording_ = true;
  return {};
}

base::result<std::unique_ptr<recording>> cuda_queue::end_recording() {
  pending_.flush();
  recording_ = false;
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  note(ended, "recording a step");
  TROUPE_TRY_VOID(status());
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  TROUPE_TRY_VOID(checked(made, "preparing a recorded step"));
  return std::make_unique<cuda_recording>(executable, *this, generation_);
}

}  // namespace troupe::kernels::cuda
