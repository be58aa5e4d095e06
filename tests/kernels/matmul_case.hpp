// One matrix product on random data: makes the operands, runs a path, holds it against the
// reference.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/matmul/matmul.hpp"

namespace troupe::kernels {

struct matmul_case {
  dtype type = dtype::bfloat16;
  quantisation kind = quantisation::none;
  std::int64_t rows = 1;
  std::int64_t outputs = 16;
  std::vector<std::int64_t> run_ends{32};
  bool bias = false;
  bool integers = false;       // small ones: every sum is exact, whatever its order
  std::int64_t input_gap = 0;  // elements between rows
  std::int64_t output_gap = 0;
  std::uint32_t seed = 1;

  [[nodiscard]] std::int64_t inputs() const { return run_ends.back(); }
};

inline std::string to_text(const matmul_case& of) {
  std::ostringstream text;
  text << to_string(of.type) << " kind " << static_cast<int>(of.kind) << " rows " << of.rows
       << " outputs " << of.outputs << " runs";
  for (const std::int64_t end : of.run_ends) text << ' ' << end;
  text << (of.bias ? " bias" : "") << " seed " << of.seed;
  return text.str();
}

// Owns the operands of a case. Element bytes are the case's dtype's.
struct matmul_operands {
  matmul_case of;
  std::vector<std::byte> input;    // [rows][inputs + gap]
  std::vector<std::byte> weights;  // [outputs][inputs]
  std::vector<float> bias;
  packed_tensor packed;

  explicit matmul_operands(matmul_case made_of) : of(std::move(made_of)) {
    std::mt19937 generator(of.seed);
    input = draw(of.rows * (of.inputs() + of.input_gap), generator);
    weights = draw(of.outputs * of.inputs(), generator);
    if (of.bias) {
      bias.resize(static_cast<std::size_t>(of.outputs));
      for (float& value : bias) value = next(generator);
    }
    packed = pack(0, of.outputs, of.run_ends);
  }

  // Some outputs of the weights, over inputs [0, run_ends.back()).
  [[nodiscard]] packed_tensor pack(std::int64_t first, std::int64_t count,
                                   std::vector<std::int64_t> ends) const {
    const std::size_t row = static_cast<std::size_t>(of.inputs()) * size_of(of.type);
    auto made = packed_tensor::allocate(
        {.outputs = count, .run_ends = std::move(ends), .type = of.type, .kind = of.kind});
    EXPECT_TRUE(made.has_value());
    made->pack(
        {.rows = std::span(weights).subspan(static_cast<std::size_t>(first) * row,
                                            static_cast<std::size_t>(count) * row),
         .source = of.type == dtype::float32 ? source_dtype::float32 : source_dtype::bfloat16,
         .first_output = 0,
         .outputs = count});
    return std::move(*made);
  }

  [[nodiscard]] tensor_view input_view() {
    return {{device_kind::cpu, input.data()},
            of.type,
            {of.rows, of.inputs(), 1},
            of.inputs() + of.input_gap};
  }

  [[nodiscard]] float input_at(std::int64_t row, std::int64_t column) const {
    return element(input, row * (of.inputs() + of.input_gap) + column);
  }
  [[nodiscard]] float weight_at(std::int64_t output, std::int64_t column) const {
    return element(weights, output * of.inputs() + column);
  }

  // The output with its gaps, filled with `guard` before.
  static constexpr float guard = 12345.0F;
  [[nodiscard]] std::vector<float> multiply(instruction_path path, int threads) {
    const std::int64_t stride = of.outputs + of.output_gap;
    std::vector<float> output(static_cast<std::size_t>(of.rows * stride), guard);
    thread_pool pool({.threads = threads});
    matmul(
        path, pool,
        {.input = input_view(), .weights = &packed, .bias = bias, .output = output_view(output)});
    return output;
  }
  [[nodiscard]] std::vector<float> reference() {
    const std::int64_t stride = of.outputs + of.output_gap;
    std::vector<float> output(static_cast<std::size_t>(of.rows * stride), guard);
    matmul_reference(
        {.input = input_view(), .weights = &packed, .bias = bias, .output = output_view(output)});
    return output;
  }

  // What the result may differ by from the exact one: nothing where the weights are integers. S =
  // sum |a| |w| + |bias| of the cell, u = 2^-24. Products of two bfloat16 are exact in float32, and
  // fused ones are not rounded, so only additions round: at most one for each input, 3 in the tree,
  // one for the bias and one in the reference's conversion, each by u times a partial sum, which is
  // at most S. The bfloat16 instructions flush what is below 2^-126 to zero at each of them.
  [[nodiscard]] double tolerance(std::int64_t row, std::int64_t output) const {
    if (is_integer(of.kind)) return 0.0;
    double magnitude = of.bias ? std::abs(bias[static_cast<std::size_t>(output)]) : 0.0;
    for (std::int64_t i = 0; i < of.inputs(); ++i) {
      magnitude += std::abs(static_cast<double>(input_at(row, i)) * weight_at(output, i));
    }
    const auto additions = static_cast<double>(of.inputs() + 8);
    return additions * (0x1p-24 * magnitude * (1 + additions * 0x1p-24) + 0x1p-126);
  }

 private:
  [[nodiscard]] tensor_view output_view(std::vector<float>& output) const {
    tensor_view view = matrix_view(output.data(), of.rows, of.outputs);
    view.row_stride += of.output_gap;
    return view;
  }
  [[nodiscard]] float next(std::mt19937& generator) const {
    if (of.integers) return static_cast<float>(static_cast<int>(generator() % 9) - 4);
    return static_cast<float>(generator()) * 0x1p-31F - 1.0F;
  }
  [[nodiscard]] std::vector<std::byte> draw(std::int64_t elements, std::mt19937& generator) const {
    std::vector<std::byte> bytes(static_cast<std::size_t>(elements) * size_of(of.type));
    for (std::size_t i = 0; i < static_cast<std::size_t>(elements); ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(next(generator));
      const auto upper = static_cast<std::uint16_t>(bits >> 16);
      if (of.type == dtype::float32) {
        std::memcpy(bytes.data() + i * 4, &bits, 4);
      } else {
        std::memcpy(bytes.data() + i * 2, &upper, 2);
      }
    }
    return bytes;
  }
  [[nodiscard]] float element(const std::vector<std::byte>& bytes, std::int64_t index) const {
    std::uint32_t bits = 0;
    if (of.type == dtype::float32) {
      std::memcpy(&bits, bytes.data() + index * 4, 4);
    } else {
      std::uint16_t upper = 0;
      std::memcpy(&upper, bytes.data() + index * 2, 2);
      bits = static_cast<std::uint32_t>(upper) << 16;
    }
    return std::bit_cast<float>(bits);
  }
};

}  // namespace troupe::kernels
