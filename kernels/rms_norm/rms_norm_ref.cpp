#include <cmath>

#include "kernels/bfloat16.hpp"
#include "kernels/rms_norm/rms_norm.hpp"

namespace troupe::kernels {

void rms_norm_reference(const rms_norm_args& args) {
  const auto size = static_cast<std::int64_t>(args.weight.size());
  if (size == 0) return;
  for (std::int64_t row = 0; row < args.input.rows(); ++row) {
    for (std::int64_t first = 0; first < args.input.columns(); first += size) {
      const float* const x = args.input.row<float>(row) + first;
      double squares = 0;
      for (std::int64_t i = 0; i < size; ++i) squares += static_cast<double>(x[i]) * x[i];
      const double scale =
          1.0 / std::sqrt(squares / static_cast<double>(size) + static_cast<double>(args.epsilon));
      for (std::int64_t i = 0; i < size; ++i) {
        const auto value =
            static_cast<float>(x[i] * scale * args.weight[static_cast<std::size_t>(i)]);
        if (args.output.type == dtype::float32) {
          args.output.row<float>(row)[first + i] = value;
        } else {
          args.output.row<std::uint16_t>(row)[first + i] = to_bfloat16(value);
        }
      }
    }
  }
}

}  // namespace troupe::kernels
