#include "kernels/rotary/rotary.hpp"

namespace troupe::kernels {

void rotary_reference(const rotary_args& args) {
  const std::int64_t half = args.heads.shape[2] / 2;
  for (std::int64_t token = 0; token < args.heads.rows(); ++token) {
    for (std::int64_t head = 0; head < args.heads.shape[1]; ++head) {
      float* const x = args.heads.row<float>(token) + head * 2 * half;
      for (std::int64_t i = 0; i < half; ++i) {
        const double c = args.cos[static_cast<std::size_t>(token * half + i)];
        const double s = args.sin[static_cast<std::size_t>(token * half + i)];
        const double a = x[i];
        const double b = x[i + half];
        x[i] = static_cast<float>(a * c - b * s);
        x[i + half] = static_cast<float>(b * c + a * s);
      }
    }
  }
}

}  // namespace troupe::kernels
