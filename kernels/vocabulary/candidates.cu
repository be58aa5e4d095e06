// The best candidates of each run, exactly, without sorting the vocabulary: the key of the last one
// is found digit by digit, those above it are gathered, ties by ascending id, and only they are
// sorted.
#include "kernels/vocabulary/vocabulary.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 1024;
constexpr int warps = threads / warp_threads;
constexpr int digits = 256;

// Ordered like the logits; zeros of both signs are equal.
__device__ __forceinline__ std::uint32_t ordered(float logit) {
  const std::uint32_t bits = __float_as_uint(__fadd_rn(logit, 0.0F));
  constexpr std::uint32_t sign = 0x80000000U;
  return (bits & sign) != 0 ? ~bits : bits | sign;
}

struct selection_memory {
  unsigned histogram[digits];
  unsigned warp_counts[warps];
  std::uint32_t prefix;
  unsigned wanted;  // of those that share the prefix
  unsigned gathered;
  std::uint64_t keys[vocabulary_candidates_max];  // logit, then complement of the id
};

// Finds the key of the `wanted`th best; leaves how many of its equals belong to the best.
__device__ __forceinline__ void find_last_key(const float* logits, int count,
                                              selection_memory& shared) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = static_cast<int>(threadIdx.x); i < digits; i += threads) shared.histogram[i] = 0;
    __syncthreads();
    const std::uint32_t above = shift == 24 ? 0U : 0xFFFFFFFFU << (shift + 8);
    for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) {
      const std::uint32_t key = ordered(logits[i]);
      if ((key & above) == (shared.prefix & above)) {
        atomicAdd(&shared.histogram[(key >> shift) & (digits - 1U)], 1U);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = digits - 1;
      while (digit > 0 && shared.histogram[digit] < shared.wanted) {
        shared.wanted -= shared.histogram[digit--];
      }
      shared.prefix |= static_cast<std::uint32_t>(digit) << shift;
    }
    __syncthreads();
  }
}

// Those above the last key in any order, and the first of its equals by ascending id.
__device__ __forceinline__ void gather(const float* logits, int count, std::int32_t first_id,
                                       selection_memory& shared) {
  unsigned ties = 0;  // before this round, the same in all threads
  for (int base = 0; base < count; base += threads) {
    const int at = base + static_cast<int>(threadIdx.x);
    const std::uint32_t key = at < count ? ordered(logits[at]) : 0U;
    const bool tie = at < count && key == shared.prefix;
    const unsigned found = __ballot_sync(0xFFFFFFFFU, tie);
    if (threadIdx.x % warp_threads == 0) {
      shared.warp_counts[threadIdx.x / warp_threads] = __popc(found);
    }
    __syncthreads();
    unsigned rank = ties + __popc(found & ((1U << (threadIdx.x % warp_threads)) - 1U));
    for (unsigned warp = 0; warp < threadIdx.x / warp_threads; ++warp) {
      rank += shared.warp_counts[warp];
    }
    const bool taken = at < count && (key > shared.prefix || (tie && rank < shared.wanted));
    if (taken) {
      const auto id = static_cast<std::uint32_t>(first_id + at);
      shared.keys[atomicAdd(&shared.gathered, 1U)] = (std::uint64_t{key} << 32) | ~id;
    }
    for (int warp = 0; warp < warps; ++warp) ties += shared.warp_counts[warp];
    __syncthreads();
  }
}

// Descending, bitonic. Shape: keys [size], a power of two.
__device__ __forceinline__ void sort_keys(std::uint64_t* keys, int size) {
  for (int width = 2; width <= size; width *= 2) {
    for (int step = width / 2; step > 0; step /= 2) {
      for (int i = static_cast<int>(threadIdx.x); i < size; i += threads) {
        const int other = i ^ step;
        const bool descending = (i & width) == 0;
        if (other > i && (keys[i] < keys[other]) == descending) {
          const std::uint64_t held = keys[i];
          keys[i] = keys[other];
          keys[other] = held;
        }
      }
      __syncthreads();
    }
  }
}

// Grid: runs, rows.
__global__ void __launch_bounds__(threads)
    candidates_kernel(const __grid_constant__ summarise_launch what) {
  __shared__ selection_memory shared;
  wait_for_previous();
  release_next();
  const auto run = static_cast<int>(blockIdx.x);
  const std::int64_t row = blockIdx.y;
  const std::int64_t begin = what.run_begin[run];
  const auto count = static_cast<int>(what.run_begin[run + 1] - begin);
  const std::int64_t place = row * what.runs + run;
  token_candidate* const top = what.top + place * what.candidates;
  const float* const logits = what.logits + row * what.stride + begin;
  const auto first_id = static_cast<std::int32_t>(what.first_token_id + begin);
  const int kept = what.summaries[place].finite ? min(count, what.candidates) : 0;
  if (threadIdx.x == 0) {
    shared.prefix = 0;
    shared.wanted = static_cast<unsigned>(kept);
    shared.gathered = 0;
  }
  int size = 1;
  while (size < kept) size *= 2;
  for (int i = static_cast<int>(threadIdx.x); i < size; i += threads) shared.keys[i] = 0;
  __syncthreads();
  if (kept > 0) {
    find_last_key(logits, count, shared);
    gather(logits, count, first_id, shared);
    sort_keys(shared.keys, size);
  }
  for (int i = static_cast<int>(threadIdx.x); i < what.candidates; i += threads) {
    token_candidate candidate;
    if (i < kept) {
      candidate.token_id = static_cast<std::int32_t>(~static_cast<std::uint32_t>(shared.keys[i]));
      candidate.logit = logits[candidate.token_id - first_id];
    }
    top[i] = candidate;
  }
}

}  // namespace

cudaError_t select_candidates(cudaStream_t stream, const summarise_launch& what) {
  if (what.candidates > vocabulary_candidates_max) return cudaErrorInvalidValue;
  return launch(stream,
                {.grid = dim3(static_cast<unsigned>(what.runs), static_cast<unsigned>(what.rows)),
                 .block = dim3(threads)},
                candidates_kernel, what);
}

}  // namespace troupe::kernels::cuda
