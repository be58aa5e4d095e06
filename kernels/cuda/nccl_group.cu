#include "kernels/cuda/nccl_group.cuh"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.hpp"
#include "base/clock.hpp"
#include "kernels/add/add_floats.cuh"
#include "kernels/cuda/nccl_library.cuh"

namespace troupe::kernels::cuda {
namespace {

static_assert(sizeof(device_group_id) == sizeof(ncclUniqueId));

// Operations that the host may be ahead of the device. Without a bound a stream that a dead peer
// holds up would fill, and the next launch would block where nothing can end it: a stream takes
// about 1,024 launches, and between two operations there are some twelve kernels.
constexpr std::size_t operations_ahead_max = 32;

bool started(ncclResult_t code) { return code == ncclSuccess || code == ncclInProgress; }

// A communicator of one epoch. NCCL's calls come from the queue's thread alone: abort() only sets
// a flag, which every call and every wait of that thread looks at, and which makes it abort there.
class nccl_group final : public device_group, public stream_holder {
 public:
  nccl_group(const nccl_library& nccl, cuda_queue& on, const device_group_options& options)
      : nccl_(nccl), queue_(on), rank_(options.rank), size_(options.size), over_(options.over) {}
  ~nccl_group();

  // Errors: aborted, deadline_exceeded, unavailable, internal.
  [[nodiscard]] base::result<void> meet(const device_group_options& options);

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return size_; }
  base::result<void> exchange(std::span<const device_outgoing> out,
                              std::span<const device_incoming> in) override;
  base::result<void> all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  base::result<void> broadcast(int root, std::span<std::byte> bytes) override;
  base::result<void> add(std::span<float> values, std::span<const float> addend) override;
  base::result<void> copy(std::span<const std::byte> from, std::span<std::byte> to) override;
  base::result<void> wait() override { return queue_.synchronize(); }
  void abort() noexcept override { abort_wanted_.store(true, std::memory_order_release); }

  base::result<void> check() override;
  void let_go(const base::error& cause) noexcept override;

 private:
  [[nodiscard]] bool is_over() const noexcept {
    return abort_wanted_.load(std::memory_order_acquire) ||
           (over_ != nullptr && over_->load(std::memory_order_acquire));
  }
  // Ends the communicator, whose kernels then return, and keeps the cause for every later call.
  base::result<void> end(const base::error& cause);
  base::result<void> end_failed(ncclResult_t code, const char* doing);
  // Until what NCCL does in the background is done; without a deadline only abort ends it.
  base::result<void> settle(const char* doing, std::optional<base::steady_time> deadline = {});
  template <class Enqueue>
  base::result<void> run(const char* doing, const Enqueue& enqueue);

  const nccl_library nccl_;
  cuda_queue& queue_;
  const int rank_;
  const int size_;
  const std::atomic<bool>* const over_;
  std::atomic<bool> abort_wanted_{false};
  ncclComm_t comm_ = nullptr;
  std::optional<base::error> failure_;
  std::array<cudaEvent_t, operations_ahead_max> done_{};
  std::uint64_t operations_ = 0;
};

nccl_group::~nccl_group() {
  // Not ncclCommDestroy, which waits for peers that may be gone.
  if (comm_ != nullptr) {
    static_cast<void>(end({base::error_code::aborted, "the rank has left the epoch", "cuda"}));
  }
  queue_.detach(*this);
  for (const cudaEvent_t event : done_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
}

void nccl_group::let_go(const base::error& cause) noexcept {
  if (!failure_) failure_ = cause;
  if (comm_ != nullptr) static_cast<void>(nccl_.abort(std::exchange(comm_, nullptr)));
}

// With all others of a queue that is busy, in one NCCL group: every abort flag is set before the
// first communicator is taken apart, which waits for the stream, where a kernel of another may be
// first.
base::result<void> nccl_group::end(const base::error& cause) {
  static_cast<void>(nccl_.group_start());
  let_go(cause);
  if (cudaStreamQuery(queue_.stream()) != cudaSuccess) queue_.let_go(cause);
  static_cast<void>(nccl_.group_end());
  return tl::unexpected(*failure_);
}

base::result<void> nccl_group::end_failed(ncclResult_t code, const char* doing) {
  const std::string detail = comm_ == nullptr ? "" : nccl_.last_error(comm_);
  return end({base::error_code::unavailable,
              std::string("NCCL, ") + doing + ": " + nccl_.error_string(code) +
                  (detail.empty() ? "" : " (" + detail + ")"),
              "cuda"});
}

base::result<void> nccl_group::check() {
  if (failure_) return tl::unexpected(*failure_);
  if (is_over()) {
    return end({base::error_code::aborted, "the group was aborted; a new epoch needs a new group",
                "cuda"});
  }
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = nccl_.async_error(comm_, &state);
  if (asked != ncclSuccess) return end_failed(asked, "asking for its state");
  if (!started(state)) return end_failed(state, "in an operation");
  return {};
}

base::result<void> nccl_group::settle(const char* doing,
                                      std::optional<base::steady_time> deadline) {
  for (int look = 0;; ++look) {
    TROUPE_TRY_VOID(check());
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = nccl_.async_error(comm_, &state);
    if (asked != ncclSuccess) return end_failed(asked, doing);
    if (state == ncclSuccess) return {};
    if (deadline && base::steady_now() > *deadline) {
      return end({base::error_code::deadline_exceeded,
                  std::string("NCCL, ") + doing + ": not all ranks have come in time", "cuda"});
    }
    rest_before(look);
  }
}

base::result<void> nccl_group::meet(const device_group_options& options) {
  for (cudaEvent_t& event : done_) {
    TROUPE_TRY_VOID(
        checked(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event"));
  }
  ncclUniqueId id;
  std::memcpy(&id, options.id.data(), sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t begun = nccl_.init_rank(&comm_, size_, id, rank_, &config);
  if (!started(begun)) return end_failed(begun, "joining its group");
  if (comm_ == nullptr) return end_failed(ncclInternalError, "joining its group");
  TROUPE_TRY_VOID(settle("joining its group", base::steady_now() + options.patience));
  queue_.attach(*this);
  return {};
}

template <class Enqueue>
base::result<void> nccl_group::run(const char* doing, const Enqueue& enqueue) {
  TROUPE_TRY_VOID(check());
  queue_.pending().flush();
  const cudaEvent_t done = done_[operations_ % operations_ahead_max];
  if (operations_ >= operations_ahead_max) TROUPE_TRY_VOID(queue_.wait_for(done));
  ++operations_;
  ncclResult_t code = nccl_.group_start();
  if (code == ncclSuccess) {
    const ncclResult_t asked = enqueue();
    const ncclResult_t ended = nccl_.group_end();
    code = started(asked) ? ended : asked;
  }
  if (!started(code)) return end_failed(code, doing);
  // What comes next on the stream is in order only once this is enqueued.
  TROUPE_TRY_VOID(settle(doing));
  queue_.note(cudaEventRecord(done, queue_.stream()), doing);
  return {};
}

base::result<void> nccl_group::exchange(std::span<const device_outgoing> out,
                                        std::span<const device_incoming> in) {
  const bool any = std::any_of(out.begin(), out.end(), [](auto& m) { return !m.bytes.empty(); }) ||
                   std::any_of(in.begin(), in.end(), [](auto& m) { return !m.bytes.empty(); });
  if (!any) return check();
  return run("exchanging with its peers", [&] {
    ncclResult_t code = ncclSuccess;
    for (const device_outgoing& message : out) {
      if (message.bytes.empty() || !started(code)) continue;
      code = nccl_.send(message.bytes.data(), message.bytes.size(), ncclUint8, message.to, comm_,
                        queue_.stream());
    }
    for (const device_incoming& message : in) {
      if (message.bytes.empty() || !started(code)) continue;
      code = nccl_.receive(message.bytes.data(), message.bytes.size(), ncclUint8, message.from,
                           comm_, queue_.stream());
    }
    return code;
  });
}

base::result<void> nccl_group::all_gather(std::span<const std::byte> mine,
                                          std::span<std::byte> all) {
  TROUPE_CHECK(mine.size() * static_cast<std::size_t>(size_) == all.size());
  if (all.empty()) return check();
  return run("gathering", [&] {
    return nccl_.all_gather(mine.data(), all.data(), mine.size(), ncclUint8, comm_,
                            queue_.stream());
  });
}

base::result<void> nccl_group::broadcast(int root, std::span<std::byte> bytes) {
  if (bytes.empty()) return check();
  return run("broadcasting", [&] {
    return nccl_.broadcast(bytes.data(), bytes.data(), bytes.size(), ncclUint8, root, comm_,
                           queue_.stream());
  });
}

base::result<void> nccl_group::add(std::span<float> values, std::span<const float> addend) {
  TROUPE_CHECK(values.size() == addend.size());
  TROUPE_TRY_VOID(check());
  queue_.pending().flush();
  queue_.note(add_floats(queue_.stream(), values.data(), addend.data(),
                         static_cast<std::int64_t>(values.size())),
              "adding ranks");
  return {};
}

base::result<void> nccl_group::copy(std::span<const std::byte> from, std::span<std::byte> to) {
  TROUPE_CHECK(from.size() == to.size());
  TROUPE_TRY_VOID(check());
  if (from.empty() || from.data() == to.data()) return {};
  queue_.pending().flush();
  queue_.note(cudaMemcpyAsync(to.data(), from.data(), from.size(), cudaMemcpyDeviceToDevice,
                              queue_.stream()),
              "copying between groups' buffers");
  return {};
}

}  // namespace

base::result<std::string> nccl_version() {
  TROUPE_TRY(nccl, load_nccl());
  return "NCCL " + nccl_version_text(nccl.version);
}

base::result<device_group_id> make_nccl_id() {
  TROUPE_TRY(nccl, load_nccl());
  ncclUniqueId made{};
  const ncclResult_t code = nccl.get_unique_id(&made);
  if (code != ncclSuccess) {
    return base::fail(base::error_code::unavailable, "cuda",
                      std::string("NCCL, making an id: ") + nccl.error_string(code) + " (" +
                          nccl.last_error(nullptr) + ")");
  }
  device_group_id id;
  std::memcpy(id.data(), &made, sizeof made);
  return id;
}

base::result<std::unique_ptr<device_group>> make_nccl_group(cuda_queue& on,
                                                            const device_group_options& options) {
  TROUPE_TRY(nccl, load_nccl());
  TROUPE_CHECK(options.size >= 1 && options.rank >= 0 && options.rank < options.size);
  auto made = std::make_unique<nccl_group>(nccl, on, options);
  TROUPE_TRY_VOID(made->meet(options));
  return std::unique_ptr<device_group>(std::move(made));
}

}  // namespace troupe::kernels::cuda
