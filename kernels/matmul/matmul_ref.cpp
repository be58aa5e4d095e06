#include <bit>
#include <vector>

#include "kernels/matmul/matmul.hpp"

namespace troupe::kernels {
namespace {

double element(const tensor_view& view, std::int64_t row, std::int64_t column) {
  if (view.type == dtype::float32) return view.row<const float>(row)[column];
  const std::uint16_t bits = view.row<const std::uint16_t>(row)[column];
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace

void matmul_reference(const matmul_args& args) {
  const packed_tensor& weights = *args.weights;
  const std::int64_t inputs = weights.inputs();
  std::vector<float> column(static_cast<std::size_t>(inputs));
  for (std::int64_t output = 0; output < weights.outputs(); ++output) {
    weights.unpack_row(output, column);
    for (std::int64_t row = 0; row < args.input.rows(); ++row) {
      double sum = 0;
      for (std::int64_t i = 0; i < inputs; ++i) {
        sum +=
            element(args.input, row, i) * static_cast<double>(column[static_cast<std::size_t>(i)]);
      }
      if (!args.bias.empty()) {
        sum += static_cast<double>(args.bias[static_cast<std::size_t>(output)]);
      }
      args.output.row<float>(row)[output] = static_cast<float>(sum);
    }
  }
}

}  // namespace troupe::kernels
