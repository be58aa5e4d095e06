#include "cli/offered_paths.hpp"

namespace troupe::cli {

std::vector<kernels::instruction_path> offered_paths(
    kernels::instruction_path chosen, bool asked_for,
    std::span<const kernels::instruction_path> supported) {
  if (asked_for || on_cuda(chosen)) return {chosen};
  return {supported.begin(), supported.end()};
}

}  // namespace troupe::cli
