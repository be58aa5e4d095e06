#include "kernels/add/add.hpp"

namespace troupe::kernels {

void add_reference(const add_args& args) {
  for (std::int64_t row = 0; row < args.target.rows(); ++row) {
    float* const target = args.target.row<float>(row);
    const float* const addend = args.addend.row<float>(row);
    for (std::int64_t i = 0; i < args.target.columns(); ++i) {
      const float biased =
          args.bias.empty() ? addend[i] : addend[i] + args.bias[static_cast<std::size_t>(i)];
      target[i] += biased;
    }
  }
}

}  // namespace troupe::kernels
