#include "models/weight_digest_leaves.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/check.hpp"
#include "models/registry.hpp"
#include "models/weight_reader.hpp"

namespace troupe::models {
namespace {

// One share of the files' tensors by name, then by run; of one tensor and run by rectangle.
auto order_of(const weight_leaf& leaf) {
  return std::tuple(leaf.tensor, leaf.run, leaf.outputs.begin, leaf.outputs.end, leaf.inputs.begin,
                    leaf.inputs.end);
}
auto rectangle_of(const weight_leaf& leaf) {
  return std::tuple(leaf.tensor, leaf.outputs.begin, leaf.outputs.end, leaf.inputs.begin,
                    leaf.inputs.end);
}

// What run `run` of a pipeline stage loads, in the order of loading.
base::result<void> plan_run(const checkpoint& files, const model_config& config, placement stage,
                            int run, std::vector<weight_leaf>& into) {
  weight_reader reader({.files = &files,
                        .type = kernels::dtype::bfloat16,
                        .pool = nullptr,
                        .plan_only = true,
                        .progress = {},
                        .after_part = [&](const matrix_part& part) -> base::result<void> {
                          if (part.outputs.size() == 0 || part.inputs.size() == 0) return {};
                          TROUPE_TRY(tensor, files.find(part.name));
                          into.push_back({.tensor = tensor,
                                          .run = run,
                                          .outputs = part.outputs,
                                          .inputs = part.inputs,
                                          .all_inputs = part.all_inputs});
                          return {};
                        }});
  const placement where{.tp_rank = run,
                        .tp_size = canonical_runs,
                        .pp_rank = stage.pp_rank,
                        .pp_size = stage.pp_size};
  TROUPE_TRY_VOID(load({reader, config, where, true}));
  return {};
}

base::result<std::vector<weight_leaf>> plan_share(const checkpoint& files,
                                                  const model_config& config, placement where) {
  std::vector<weight_leaf> leaves;
  const int runs = canonical_runs / where.tp_size;
  for (int run = where.tp_rank * runs; run < (where.tp_rank + 1) * runs; ++run) {
    TROUPE_TRY_VOID(plan_run(files, config, where, run, leaves));
  }
  return leaves;
}

}  // namespace

base::digest weight_leaves::layout_digest() const {
  base::sha256 hash;
  const tensor_info* told = nullptr;
  for (const weight_leaf& leaf : leaves) {
    if (std::exchange(told, leaf.tensor) != leaf.tensor) {
      const tensor_info& of = *leaf.tensor;
      hash.update(fmt::format("{}:{} {} file {} at {}, {} bytes\n", of.name.size(), of.name,
                              to_string(of.dtype), of.file, of.offset, of.bytes));
    }
    hash.update(fmt::format("{}: {} to {}, {} to {} of {}\n", leaf.run, leaf.outputs.begin,
                            leaf.outputs.end, leaf.inputs.begin, leaf.inputs.end, leaf.all_inputs));
  }
  return hash.finish();
}

base::result<weight_leaves> plan_weight_leaves(const checkpoint& files,
                                               const model_config& config) {
  TROUPE_TRY(leaves, plan_share(files, config, {}));
  const auto by_rectangle_then_run = [](const weight_leaf& a, const weight_leaf& b) {
    return std::pair(rectangle_of(a), a.run) < std::pair(rectangle_of(b), b.run);
  };
  std::ranges::sort(leaves, by_rectangle_then_run);
  const auto repeated = std::ranges::unique(leaves, {}, rectangle_of);
  leaves.erase(repeated.begin(), repeated.end());
  // Tensors are in one array by name: their addresses are in that order.
  std::ranges::sort(leaves, {}, order_of);
  return weight_leaves{&files, std::move(leaves)};
}

base::result<std::vector<std::uint32_t>> leaves_of(const weight_leaves& tree,
                                                   const model_config& config, placement where) {
  TROUPE_TRY(share, plan_share(*tree.files, config, where));
  std::vector<std::pair<decltype(rectangle_of(share.front())), std::uint32_t>> known;
  for (const weight_leaf& leaf : tree.leaves) {
    known.emplace_back(rectangle_of(leaf), static_cast<std::uint32_t>(known.size()));
  }
  std::ranges::sort(known);
  std::vector<std::uint32_t> indices;
  for (const weight_leaf& leaf : share) {
    const auto at = std::ranges::lower_bound(known, rectangle_of(leaf), {},
                                             [](const auto& each) { return each.first; });
    TROUPE_CHECK(at != known.end() && at->first == rectangle_of(leaf));  // a stage has no other
    indices.push_back(at->second);
  }
  std::ranges::sort(indices);
  const auto repeated = std::ranges::unique(indices);
  indices.erase(repeated.begin(), repeated.end());
  return indices;
}

}  // namespace troupe::models
