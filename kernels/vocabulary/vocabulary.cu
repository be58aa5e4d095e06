// Compiled without contraction (-fmad=false): the noise is the CPU's, operation by operation.
#include "kernels/vocabulary/vocabulary.cuh"

#include "kernels/vocabulary/gumbel.hpp"
#include "kernels/vocabulary/philox.hpp"
#include "kernels/vocabulary/vocabulary.hpp"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;
constexpr int tokens_each = vocabulary_chunk / threads;

__device__ __forceinline__ float inverse_of(float temperature) {
  return __fdiv_rn(1.0F, fmaxf(temperature, temperature_min));
}

// As kernels::perturbed_score.
__device__ __forceinline__ float score_of(const sampling_row& row, std::int32_t token_id,
                                          float logit) {
  if (row.temperature == 0.0F) return logit;
  const auto id = static_cast<std::uint32_t>(token_id);
  const auto words = philox4x32_10(
      {id / 4, row.choice, static_cast<std::uint32_t>(row.token_index),
       static_cast<std::uint32_t>(row.token_index >> 32)},
      {static_cast<std::uint32_t>(row.seed), static_cast<std::uint32_t>(row.seed >> 32)});
  const std::uint32_t pair =
      id % 4 < 2 ? (id % 2 == 0 ? words[0] : words[1]) : (id % 2 == 0 ? words[2] : words[3]);
  return __fadd_rn(__fmul_rn(logit, inverse_of(row.temperature)), gumbel_from_bits(pair));
}

struct best_token {
  float score = -INFINITY;
  std::int32_t id = -1;
  float logit = 0.0F;

  // Higher scores win, then lower ids.
  __device__ __forceinline__ void offer(float other_score, std::int32_t other_id,
                                        float other_logit) {
    const bool wins = id < 0 || other_score > score || (other_score == score && other_id < id);
    if (other_id < 0 || !wins) return;
    score = other_score;
    id = other_id;
    logit = other_logit;
  }
  __device__ __forceinline__ void join_warp() {
#pragma unroll
    for (int offset = warp_threads / 2; offset > 0; offset /= 2) {
      const float other_score = __shfl_xor_sync(0xFFFFFFFFU, score, offset);
      const std::int32_t other_id = __shfl_xor_sync(0xFFFFFFFFU, id, offset);
      const float other_logit = __shfl_xor_sync(0xFFFFFFFFU, logit, offset);
      offer(other_score, other_id, other_logit);
    }
  }
};

constexpr int warps = threads / warp_threads;

// Over the block, for all its threads; `combine` in a fixed tree. Shape: shared [warps].
template <class Value, class Combine>
__device__ __forceinline__ Value over_block(Value value, Value* shared, const Combine& combine) {
#pragma unroll
  for (int offset = warp_threads / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(0xFFFFFFFFU, value, offset));
  }
  if (threadIdx.x % warp_threads == 0) shared[threadIdx.x / warp_threads] = value;
  __syncthreads();
  value = shared[0];
  for (int i = 1; i < warps; ++i) value = combine(value, shared[i]);
  __syncthreads();
  return value;
}

struct block_memory {
  float values[warps];
  best_token best[warps];
};

// One chunk of one run: this thread's tokens are first + thread, then every 256th.
__device__ __forceinline__ run_summary summarise_chunk(const float* logits, int count,
                                                       std::int32_t first_id,
                                                       const sampling_row& row,
                                                       block_memory& shared) {
  float values[tokens_each];
  float maximum = -INFINITY;
  float bad = 0.0F;
#pragma unroll
  for (int i = 0; i < tokens_each; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads;
    values[i] = at < count ? logits[at] : -INFINITY;
    if (at < count && !isfinite(values[i])) bad = 1.0F;
    maximum = fmaxf(maximum, values[i]);
  }
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  const auto sum_of = [](float a, float b) { return __fadd_rn(a, b); };
  maximum = over_block(maximum, shared.values, larger);
  const bool finite = over_block(bad, shared.values, larger) == 0.0F;
  const bool greedy = row.temperature == 0.0F;
  const float inverse = greedy ? 0.0F : inverse_of(row.temperature);
  float sum = 0.0F;
  float tempered = 0.0F;
  best_token best;
#pragma unroll
  for (int i = 0; i < tokens_each; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads;
    if (at >= count || !finite) continue;
    const float below = __fsub_rn(values[i], maximum);
    sum = __fadd_rn(sum, expf(below));
    if (!greedy) tempered = __fadd_rn(tempered, expf(__fmul_rn(below, inverse)));
    const std::int32_t id = first_id + at;
    best.offer(score_of(row, id, values[i]), id, values[i]);
  }
  sum = over_block(sum, shared.values, sum_of);
  tempered = over_block(tempered, shared.values, sum_of);
  best.join_warp();
  if (threadIdx.x % warp_threads == 0) shared.best[threadIdx.x / warp_threads] = best;
  __syncthreads();
  for (int i = 0; i < warps; ++i) {
    best.offer(shared.best[i].score, shared.best[i].id, shared.best[i].logit);
  }
  return {.maximum = maximum,
          .sum_exp = sum,
          .sum_exp_tempered = tempered,
          .noise_best_score = best.score,
          .noise_best = {best.id, best.logit},
          .finite = finite};
}

// Grid: chunks of the longest run, runs, rows.
__global__ void __launch_bounds__(threads)
    summarise_kernel(const __grid_constant__ summarise_launch what, run_summary* chunks) {
  __shared__ block_memory shared;
  wait_for_previous();
  release_next();
  const auto run = static_cast<int>(blockIdx.y);
  const std::int64_t row = blockIdx.z;
  const std::int64_t begin = what.run_begin[run] + std::int64_t{blockIdx.x} * vocabulary_chunk;
  const std::int64_t left = what.run_begin[run + 1] - begin;
  if (left <= 0) return;
  const int count = static_cast<int>(min(left, std::int64_t{vocabulary_chunk}));
  const run_summary summary = summarise_chunk(
      what.logits + row * what.stride + begin, count,
      static_cast<std::int32_t>(what.first_token_id + begin), what.sampling[row], shared);
  if (threadIdx.x == 0) chunks[(row * what.runs + run) * gridDim.x + blockIdx.x] = summary;
}

// A thread a row and run: joins its chunks in order.
__global__ void join_chunks_kernel(const __grid_constant__ summarise_launch what,
                                   const run_summary* chunks, int chunks_max) {
  wait_for_previous();
  release_next();
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= what.rows * what.runs) return;
  const auto run = static_cast<int>(at % what.runs);
  const std::int64_t tokens = what.run_begin[run + 1] - what.run_begin[run];
  const sampling_row row = what.sampling[at / what.runs];
  run_summary all{.maximum = -INFINITY, .noise_best_score = -INFINITY};
  best_token best;
  for (int i = 0; std::int64_t{i} * vocabulary_chunk < tokens; ++i) {
    const run_summary chunk = chunks[at * chunks_max + i];
    all.finite = all.finite && chunk.finite;
    const float maximum = fmaxf(all.maximum, chunk.maximum);
    const float before = all.maximum == -INFINITY ? 0.0F : __fsub_rn(all.maximum, maximum);
    const float after = __fsub_rn(chunk.maximum, maximum);
    all.sum_exp =
        __fadd_rn(__fmul_rn(all.sum_exp, expf(before)), __fmul_rn(chunk.sum_exp, expf(after)));
    if (row.temperature != 0.0F) {
      const float inverse = inverse_of(row.temperature);
      all.sum_exp_tempered =
          __fadd_rn(__fmul_rn(all.sum_exp_tempered, expf(__fmul_rn(before, inverse))),
                    __fmul_rn(chunk.sum_exp_tempered, expf(__fmul_rn(after, inverse))));
    }
    all.maximum = maximum;
    best.offer(chunk.noise_best_score, chunk.noise_best.token_id, chunk.noise_best.logit);
  }
  all.noise_best_score = best.score;
  all.noise_best = {best.id, best.logit};
  what.summaries[at] = all;
}

int chunks_of(const summarise_launch& what) {
  std::int64_t longest = 1;
  for (int run = 0; run < what.runs; ++run) {
    longest = max(longest, what.run_begin[run + 1] - what.run_begin[run]);
  }
  return static_cast<int>((longest + vocabulary_chunk - 1) / vocabulary_chunk);
}

}  // namespace

std::size_t summarise_workspace_bytes(const summarise_launch& what) {
  return static_cast<std::size_t>(what.rows * what.runs * chunks_of(what)) * sizeof(run_summary);
}

cudaError_t summarise_vocabulary(cudaStream_t stream, const summarise_launch& what) {
  if (what.rows == 0 || what.runs == 0) return cudaSuccess;
  if (what.workspace_bytes < summarise_workspace_bytes(what)) return cudaErrorInvalidValue;
  const int chunks = chunks_of(what);
  auto* const partial = static_cast<run_summary*>(what.workspace);
  cudaError_t code =
      launch(stream,
             {.grid = dim3(static_cast<unsigned>(chunks), static_cast<unsigned>(what.runs),
                           static_cast<unsigned>(what.rows)),
              .block = dim3(threads)},
             summarise_kernel, what, partial);
  if (code != cudaSuccess) return code;
  const auto blocks = static_cast<unsigned>((what.rows * what.runs + threads - 1) / threads);
  code = launch(stream, {.grid = dim3(blocks), .block = dim3(threads)}, join_chunks_kernel, what,
                static_cast<const run_summary*>(partial), chunks);
  if (code != cudaSuccess || what.candidates == 0) return code;
  return select_candidates(stream, what);
}

}  // namespace troupe::kernels::cuda
