// The leaves of a model's hash tree: which bytes of which tensor belong to which canonical run.
//
// Run j of a tensor is the rectangle that a rank of tensor-parallel size 8 at place j would load,
// so a leaf does not depend on the size that is run: a rank of t owns runs [8r/t, 8(r+1)/t). A
// rectangle that several runs share (norms, replicated KV heads) is one leaf, at the first of them.
// The rectangles come from the architecture's own loading code, with nothing read.
//
//   TROUPE_TRY(tree, models::plan_weight_leaves(files, config));
//   TROUPE_TRY(mine, models::leaves_of(tree, config, where));   // indices into tree.leaves
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.hpp"
#include "base/sha256.hpp"
#include "models/checkpoint.hpp"
#include "models/config.hpp"
#include "models/grid.hpp"
#include "models/placement.hpp"

namespace troupe::models {

struct weight_leaf {
  const tensor_info* tensor = nullptr;  // borrowed from the checkpoint
  int run = 0;                          // the first that has it
  range outputs;                        // rows; a vector is one row
  range inputs;                         // columns
  std::int64_t all_inputs = 0;

  // Units: bytes as stored.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return static_cast<std::uint64_t>(outputs.size() * inputs.size()) * size_of(tensor->dtype);
  }
};

struct weight_leaves {
  const checkpoint* files = nullptr;  // borrowed
  std::vector<weight_leaf> leaves;    // by tensor, run and rectangle; none is empty

  // Of all that says where each leaf's bytes are, but not of the bytes.
  [[nodiscard]] base::digest layout_digest() const;
};

// The whole model's. Errors: those of models::load with plan_only.
[[nodiscard]] base::result<weight_leaves> plan_weight_leaves(const checkpoint& files,
                                                             const model_config& config);

// Indices of what a rank loads, ascending. Errors: as above.
[[nodiscard]] base::result<std::vector<std::uint32_t>> leaves_of(const weight_leaves& tree,
                                                                 const model_config& config,
                                                                 placement where);

}  // namespace troupe::models
