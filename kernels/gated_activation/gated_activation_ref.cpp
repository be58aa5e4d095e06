#include <cmath>
#include <numbers>

#include "kernels/bfloat16.hpp"
#include "kernels/gated_activation/gated_activation.hpp"

namespace troupe::kernels {
namespace {

double activate(gate_kind kind, double x) {
  switch (kind) {
    case gate_kind::silu:
      return x / (1.0 + std::exp(-x));
    case gate_kind::gelu_tanh: {
      // x / 2 (1 + tanh(u)) in the form that does not cancel when x is negative.
      const double u = std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      return x / (1.0 + std::exp(-2.0 * u));
    }
    case gate_kind::gelu:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
  }
  return std::nan("");
}

}  // namespace

void gated_activation_reference(const gated_activation_args& args) {
  for (std::int64_t row = 0; row < args.gate.rows(); ++row) {
    const float* const gate = args.gate.row<float>(row);
    const float* const up = args.up.row<float>(row);
    for (std::int64_t i = 0; i < args.gate.columns(); ++i) {
      const auto value = static_cast<float>(activate(args.kind, gate[i]) * up[i]);
      if (args.output.type == dtype::float32) {
        args.output.row<float>(row)[i] = value;
      } else {
        args.output.row<std::uint16_t>(row)[i] = to_bfloat16(value);
      }
    }
  }
}

}  // namespace troupe::kernels
