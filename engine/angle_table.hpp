// Cosines and sines of positions, kept once computed: they take a correctly rounded function each,
// which a step of thousands of tokens would feel. Angles that depend on more than the position
// (dynamic scaling) are computed anew. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/rope.hpp"

namespace troupe::engine {

class angle_table {
 public:
  // Lifetime: the rope outlives the table.
  explicit angle_table(const models::rope& of);

  // Angles a token: head_dim / 2.
  [[nodiscard]] std::size_t half() const noexcept { return half_; }
  // As rope::fill. Cost: a copy of each token's row; new positions once, 1024 at a time.
  void fill(std::span<const std::int64_t> positions, std::span<const std::int64_t> rope_lengths,
            std::span<float> cos, std::span<float> sin);

 private:
  void grow(std::int64_t positions);

  const models::rope& rope_;
  std::size_t half_;
  std::vector<float> cos_;  // [position][half]
  std::vector<float> sin_;
};

}  // namespace troupe::engine
