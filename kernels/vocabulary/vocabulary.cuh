// Condenses rows of logits, per canonical run of the vocabulary, to what sampling needs: see
// kernels/vocabulary/vocabulary.hpp.
//
// Arithmetic: a run is cut into chunks of 4096 tokens; a chunk's sums of exp are taken relative to
// its own maximum, thread t of 256 adding tokens t, t + 256, ..., then a tree; chunks are joined in
// ascending order. The order depends on the run's length alone. Noise has the CPU's bits.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/vocabulary/vocabulary_types.hpp"

namespace troupe::kernels::cuda {

inline constexpr int vocabulary_runs_max = 8;
inline constexpr int vocabulary_chunk = 4096;

struct summarise_launch {
  const float* logits = nullptr;  // [rows][stride]
  std::int64_t stride = 0;
  std::int64_t rows = 0;
  int runs = 0;
  std::int64_t run_begin[vocabulary_runs_max + 1] = {};
  std::int64_t first_token_id = 0;
  const sampling_row* sampling = nullptr;  // device, [rows]
  int candidates = 0;
  run_summary* summaries = nullptr;  // device, [rows][runs]
  token_candidate* top = nullptr;    // device, [rows][runs][candidates]
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};
[[nodiscard]] std::size_t summarise_workspace_bytes(const summarise_launch& what);
[[nodiscard]] cudaError_t summarise_vocabulary(cudaStream_t stream, const summarise_launch& what);
// The second part of it: the best `candidates` of each run; needs the summaries.
[[nodiscard]] cudaError_t select_candidates(cudaStream_t stream, const summarise_launch& what);

}  // namespace troupe::kernels::cuda
