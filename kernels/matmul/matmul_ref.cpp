#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "kernels/matmul/matmul.hpp"
#include "kernels/packed_integers.hpp"

namespace troupe::kernels {
namespace {

double element(const tensor_view& view, std::int64_t row, std::int64_t column) {
  if (view.type == dtype::float32) return view.row<const float>(row)[column];
  const std::uint16_t bits = view.row<const std::uint16_t>(row)[column];
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// One run of a row as int8, by one scale.
struct int8_run {
  std::vector<int> codes;
  float scale = 0.0F;
};

int8_run quantised(const tensor_view& input, std::int64_t row, std::int64_t begin,
                   std::int64_t end) {
  float largest = 0.0F;
  bool finite = true;
  for (std::int64_t i = begin; i < end; ++i) {
    const auto value = static_cast<float>(element(input, row, i));
    finite = finite && std::isfinite(value);
    largest = std::max(largest, std::abs(value));
  }
  int8_run run{.codes = std::vector<int>(static_cast<std::size_t>(end - begin)),
               .scale = std::numeric_limits<float>::quiet_NaN()};
  if (!finite) return run;
  run.scale = largest > 0x1p-100F ? largest / 127.0F : 0.0F;
  if (run.scale == 0.0F) return run;
  const float inverse = 127.0F / largest;
  for (std::int64_t i = begin; i < end; ++i) {
    const auto value = static_cast<float>(element(input, row, i));
    run.codes[static_cast<std::size_t>(i - begin)] =
        static_cast<int>(std::nearbyint(value * inverse));
  }
  return run;
}

// Where a run of one output's integers lies.
struct integer_run {
  quantisation kind = quantisation::none;
  const std::byte* steps = nullptr;
  float scale = 0.0F;       // or the factor
  std::int64_t output = 0;  // within the block
};

float integer_run_sum(const int8_run& row, const integer_run& weights) {
  const auto count = static_cast<std::int64_t>(row.codes.size());
  const bool int8 = weights.kind == quantisation::int8_runs;
  const std::int64_t group = int8 ? count : packing::int4_group_inputs;
  float sum = 0.0F;
  for (std::int64_t begin = 0; begin < count; begin += group) {
    int products = 0;
    for (std::int64_t i = begin; i < std::min(count, begin + group); ++i) {
      const int code = int8 ? packing::int8_code(weights.steps, i, weights.output)
                            : packing::int4_code(weights.steps, i, weights.output);
      products += row.codes[static_cast<std::size_t>(i)] * code;
    }
    const auto whole = static_cast<float>(products);
    sum = int8 ? whole
               : std::fma(whole, packing::int4_scale(weights.steps, begin, weights.output), sum);
  }
  return (sum * weights.scale) * row.scale;
}

// Adds neighbours until one is left.
float tree_of(std::vector<float> sums) {
  while (sums.size() > 1) {
    for (std::size_t i = 0; i < sums.size() / 2; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
    sums.resize(sums.size() / 2);
  }
  return sums.front();
}

void integer_reference(const matmul_args& args) {
  const packed_tensor& weights = *args.weights;
  for (std::int64_t row = 0; row < args.input.rows(); ++row) {
    std::vector<int8_run> inputs;
    std::int64_t begin = 0;
    for (const std::int64_t end : weights.run_ends()) {
      inputs.push_back(quantised(args.input, row, begin, end));
      begin = end;
    }
    for (std::int64_t output = 0; output < weights.outputs(); ++output) {
      integer_run at{.kind = weights.kind(),
                     .steps = weights.block(output / tile_outputs),
                     .output = output % tile_outputs};
      const float* scales = weights.block_scales(output / tile_outputs) + at.output;
      std::vector<float> sums;
      for (const int8_run& run : inputs) {
        at.scale = *scales;
        sums.push_back(run.codes.empty() ? 0.0F : integer_run_sum(run, at));
        const auto count = static_cast<std::int64_t>(run.codes.size());
        at.steps += packing::integer_steps(count) * packing::integer_step_bytes(weights.kind());
        scales += tile_outputs;
      }
      const auto place = static_cast<std::size_t>(output);
      const float sum = tree_of(std::move(sums));
      args.output.row<float>(row)[output] = args.bias.empty() ? sum : sum + args.bias[place];
    }
  }
}

}  // namespace

void matmul_reference(const matmul_args& args) {
  const packed_tensor& weights = *args.weights;
  if (is_integer(weights.kind())) return integer_reference(args);
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
