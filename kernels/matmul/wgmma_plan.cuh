// How a product with few rows is cut into items, so that the multiprocessors end together.
#pragma once

#include "kernels/matmul/matmul_wgmma.cuh"

namespace troupe::kernels::cuda {

// How the work is cut into items.
struct few_rows_plan {
  int group_outputs = 64;  // of a warpgroup: a multiple of 16
  int item_runs = 1;       // 1 or 2, which are a pair of the tree
  int tiles = 0;           // of the outputs of a CTA
  int parts = 1;           // of the runs

  __host__ __device__ __forceinline__ int items() const { return tiles * parts; }
};

// The N of wgmma for so many rows.
[[nodiscard]] constexpr int tokens_for(std::int64_t rows) {
  int tokens = 8;
  while (tokens < rows) tokens *= 2;
  return tokens;
}
// Warpgroups that multiply: two share more rows of the batch.
[[nodiscard]] constexpr int groups_for(int tokens) { return tokens >= 32 ? 2 : 1; }
// Registers for the sums of two runs at once?
[[nodiscard]] constexpr int item_runs_max(int tokens) { return tokens <= 64 ? 2 : 1; }

struct planned {
  few_rows_plan plan;
  int residents = 1;  // CTAs of a multiprocessor
};
// The cut with which the multiprocessors end together as nearly as may be.
[[nodiscard]] planned plan_for(const matmul_weights& weights, int rows);

}  // namespace troupe::kernels::cuda
