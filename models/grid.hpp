// The canonical grid: where a sharded dimension may be cut, the same for every tensor-parallel
// size.
//
// A dimension of `size` elements is made of units (one attention head; 32 inputs of the MLP; 64
// rows of the vocabulary; the last unit may be short). Units are dealt to 8 consecutive runs, run j
// being units [floor(j * units / 8), floor((j + 1) * units / 8)); a run may be empty. A rank of t
// owns 8 / t consecutive runs, so nothing has to divide, and every sum over runs follows
// ((0+1)+(2+3))+((4+5)+(6+7)) whoever owns them.
//
//   const models::grid mlp{.size = config.intermediate_size, .unit = 32};
//   mlp.rank_range(tp_rank, tp_size)   // [begin, end) in elements
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace troupe::models {

inline constexpr int canonical_runs = 8;
inline constexpr std::int64_t mlp_unit = 32;         // inputs of the MLP's down projection
inline constexpr std::int64_t vocabulary_unit = 64;  // rows of the output embedding

struct range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] constexpr std::int64_t size() const noexcept { return end - begin; }
  [[nodiscard]] constexpr bool contains(std::int64_t i) const noexcept {
    return i >= begin && i < end;
  }
  friend constexpr bool operator==(const range&, const range&) = default;
};

struct grid {
  std::int64_t size = 0;  // elements
  std::int64_t unit = 1;  // elements a unit

  [[nodiscard]] constexpr std::int64_t units() const noexcept { return (size + unit - 1) / unit; }

  // Elements of run `run`. Range: 0 <= run < canonical_runs.
  [[nodiscard]] constexpr range run(int run) const noexcept {
    return {std::min(size, unit * (run * units() / canonical_runs)),
            std::min(size, unit * ((run + 1) * units() / canonical_runs))};
  }

  // Elements of a rank. Range: tp_size 1, 2, 4 or 8.
  [[nodiscard]] constexpr range rank_range(int tp_rank, int tp_size) const noexcept {
    const int runs = canonical_runs / tp_size;
    return {run(tp_rank * runs).begin, run((tp_rank + 1) * runs - 1).end};
  }

  // Ends of a rank's runs, relative to the start of its range; 8 / tp_size entries.
  [[nodiscard]] std::vector<std::int64_t> rank_run_ends(int tp_rank, int tp_size) const {
    const int runs = canonical_runs / tp_size;
    const std::int64_t begin = run(tp_rank * runs).begin;
    std::vector<std::int64_t> ends;
    ends.reserve(static_cast<std::size_t>(runs));
    for (int i = 0; i < runs; ++i) ends.push_back(run(tp_rank * runs + i).end - begin);
    return ends;
  }
};

}  // namespace troupe::models
