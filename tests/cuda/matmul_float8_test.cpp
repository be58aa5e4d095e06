// Products with float8_e4m3 weights on CUDA against the double reference, and bit against bit.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/bfloat16.hpp"
#include "kernels/float8.hpp"
#include "tests/cuda/cuda_case.hpp"

namespace troupe::kernels {
namespace {

struct float8_case {
  std::int64_t rows = 1;
  std::int64_t outputs = 16;
  std::vector<std::int64_t> run_ends{128};
  bool bias = false;
  bool integers = false;       // small ones, scales of powers of two: every sum is exact
  std::int64_t input_gap = 0;  // elements between rows
  std::int64_t output_gap = 0;
  std::uint32_t seed = 1;

  [[nodiscard]] std::int64_t inputs() const { return run_ends.back(); }
};

std::string to_text(const float8_case& of) {
  std::string text = "rows " + std::to_string(of.rows) + " outputs " + std::to_string(of.outputs);
  for (const std::int64_t end : of.run_ends) text += " " + std::to_string(end);
  return text + (of.bias ? " bias" : "") + " seed " + std::to_string(of.seed);
}

// Owns the operands of a case.
struct float8_operands {
  float8_case of;
  std::vector<std::uint16_t> input;      // bfloat16 [rows][inputs + gap]
  std::vector<std::byte> codes;          // [outputs][inputs]
  std::vector<float> scales;             // [outputs / 16 rounded up][segments]
  std::vector<std::int64_t> segment_of;  // one an input
  std::int64_t segments = 0;
  std::vector<float> bias;

  explicit float8_operands(float8_case made_of) : of(std::move(made_of)) {
    std::mt19937 generator(of.seed);
    const auto unit = [&] { return static_cast<float>(generator()) * 0x1p-31F - 1.0F; };
    const auto small = [&] { return static_cast<float>(static_cast<int>(generator() % 9) - 4); };
    input.resize(static_cast<std::size_t>(of.rows * stride()));
    for (std::uint16_t& value : input) value = to_bfloat16(of.integers ? small() : unit());
    codes.resize(static_cast<std::size_t>(of.outputs * of.inputs()));
    for (std::byte& code : codes) {
      const auto random = static_cast<std::uint32_t>(generator());
      const auto any = static_cast<std::byte>(random % 127 | (random >> 24U & 0x80U));
      code = of.integers ? std::byte{to_float8_towards_zero(small())} : any;
    }
    std::int64_t begin = 0;
    for (const std::int64_t end : of.run_ends) {
      for (std::int64_t i = begin; i < end; ++i) segment_of.push_back(segments + (i - begin) / 128);
      segments += (end - begin + 127) / 128;
      begin = end;
    }
    scales.resize(static_cast<std::size_t>((of.outputs + 15) / 16 * segments));
    for (float& scale : scales) {
      scale = of.integers ? std::ldexp(1.0F, static_cast<int>(generator() % 4)) : 2 + unit();
    }
    if (of.bias) bias.resize(static_cast<std::size_t>(of.outputs));
    for (float& value : bias) value = of.integers ? small() : 100 * unit();
  }

  [[nodiscard]] std::int64_t stride() const { return of.inputs() + of.input_gap; }
  [[nodiscard]] tensor_view input_view() {
    return {{device_kind::cpu, reinterpret_cast<std::byte*>(input.data())},
            dtype::bfloat16,
            {of.rows, of.inputs(), 1},
            stride()};
  }
  // Exact in double: 8 and 4 bits, and 24 of the scale.
  [[nodiscard]] double term(std::int64_t row, std::int64_t output, std::int64_t i) const {
    const auto code = std::to_integer<std::uint8_t>(codes[at(output * of.inputs() + i)]);
    const float scale = scales[at(output / 16 * segments + segment_of[at(i)])];
    return static_cast<double>(from_bfloat16(input[at(row * stride() + i)])) *
           static_cast<double>(from_float8(code)) * static_cast<double>(scale);
  }
  [[nodiscard]] double reference(std::int64_t row, std::int64_t output) const {
    double sum = of.bias ? static_cast<double>(bias[at(output)]) : 0.0;
    for (std::int64_t i = 0; i < of.inputs(); ++i) sum += term(row, output, i);
    return sum;
  }
  // What the result may differ by. S = sum |terms| + |bias|. Products of codes and bfloat16 are
  // exact in float32; a step of the tensor cores aligns its 16 products and the sum to the largest
  // and cuts what is below 2^-24 of it: 17 cuts of 2^-23 of at most S for each 16 inputs (Fasi et
  // al., "Numerical behavior of NVIDIA tensor cores", PeerJ 2021). Beside that each segment is
  // scaled and added, with two roundings, runs are added in a tree, then the bias.
  [[nodiscard]] double tolerance(std::int64_t row, std::int64_t output) const {
    double magnitude = of.bias ? std::abs(static_cast<double>(bias[at(output)])) : 0.0;
    for (std::int64_t i = 0; i < of.inputs(); ++i) magnitude += std::abs(term(row, output, i));
    const auto steps = static_cast<double>(8 * segments);
    const auto roundings = static_cast<double>(2 * segments + 8);
    return (17.0 * 0x1p-23 * steps + 0x1p-24 * roundings) * magnitude * (1 + 0x1p-10) + 1e-30;
  }

 private:
  static std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }
};

class CudaMatmulFloat8 : public cuda_testing::cuda_test {
 protected:
  // Outputs [first, first + count); `first` is a multiple of 16.
  packed_tensor pack(const float8_operands& operands, std::int64_t first, std::int64_t count) {
    auto packed = packed_tensor::allocate({.outputs = count,
                                           .run_ends = operands.of.run_ends,
                                           .type = dtype::bfloat16,
                                           .on = &on(),
                                           .kind = quantisation::float8_blocks});
    EXPECT_TRUE(packed.has_value());
    const auto inputs = static_cast<std::size_t>(operands.of.inputs());
    packed->pack({.rows = std::span(operands.codes)
                              .subspan(static_cast<std::size_t>(first) * inputs,
                                       static_cast<std::size_t>(count) * inputs),
                  .source = source_dtype::float8_e4m3,
                  .first_output = 0,
                  .outputs = count});
    packed->pack_scales(
        std::span(operands.scales)
            .subspan(static_cast<std::size_t>(first / 16 * operands.segments),
                     static_cast<std::size_t>((count + 15) / 16 * operands.segments)));
    EXPECT_TRUE(on().settle().has_value());
    return *std::move(packed);
  }

  static constexpr float guard = 12345.0F;
  std::vector<float> product(float8_operands& operands, const packed_tensor& packed,
                             const tensor_view& input) {
    const std::int64_t stride = packed.outputs() + operands.of.output_gap;
    std::vector<float> output(static_cast<std::size_t>(input.rows() * stride), guard);
    tensor_view view = matrix_view(output.data(), input.rows(), packed.outputs());
    view.row_stride = stride;
    const tensor_view there = put(view);
    const tensor_view input_there = put(input);
    run().matmul(here(), {input_there, &packed, operands.bias, there});
    get(there, view);
    return output;
  }
  std::vector<float> product(float8_operands& operands) {
    return product(operands, pack(operands, 0, operands.of.outputs), operands.input_view());
  }

  void expect_near(float8_operands& operands) {
    SCOPED_TRACE(to_text(operands.of));
    const std::vector<float> got = product(operands);
    const std::int64_t stride = operands.of.outputs + operands.of.output_gap;
    double worst = 0;
    std::string where;
    for (std::int64_t row = 0; row < operands.of.rows; ++row) {
      for (std::int64_t output = 0; output < operands.of.outputs; ++output) {
        const float found = got[static_cast<std::size_t>(row * stride + output)];
        const double want = operands.reference(row, output);
        const double excess =
            std::abs(static_cast<double>(found) - want) / operands.tolerance(row, output);
        if (excess <= worst) continue;
        worst = excess;
        where = "row " + std::to_string(row) + " output " + std::to_string(output) + ": " +
                std::to_string(found) + " instead of " + std::to_string(want);
        ASSERT_TRUE(worst <= 1.0) << where;  // a NaN too
      }
      for (std::int64_t i = operands.of.outputs; i < stride && row + 1 < operands.of.rows; ++i) {
        ASSERT_EQ(got[static_cast<std::size_t>(row * stride + i)], guard) << "row " << row;
      }
    }
  }
};

// Every run begins at a multiple of 128, as weight_reader sees to.
const std::vector<std::vector<std::int64_t>> grids{{128},
                                                   {8},
                                                   {136},
                                                   {256},
                                                   {1024},
                                                   {512, 1048},
                                                   {128, 128, 384, 512},
                                                   {0, 0, 256, 256, 384, 384, 640, 800},
                                                   {128, 256, 384, 512, 640, 768, 896, 1024}};

TEST_F(CudaMatmulFloat8, IsNearTheReference) {
  std::uint32_t seed = 1;
  for (const auto& ends : grids) {
    for (const std::int64_t rows : {1, 3, 8, 9, 16, 17, 65, 128, 200}) {
      for (const std::int64_t outputs : {16, 33, 128, 200}) {
        float8_operands operands({.rows = rows,
                                  .outputs = outputs,
                                  .run_ends = ends,
                                  .bias = seed % 2 == 0,
                                  .input_gap = seed % 3 == 0 ? 8 : 0,
                                  .output_gap = seed % 4,
                                  .seed = seed});
        expect_near(operands);
        if (HasFailure()) return;
        ++seed;
      }
    }
  }
}

TEST_F(CudaMatmulFloat8, SumsOfWholeNumbersAreExact) {
  // At most 2048 terms of 4 * 4 * 8 and the bias: whole numbers below 2^24 in any order.
  float8_operands operands({.rows = 70,
                            .outputs = 96,
                            .run_ends = {512, 2048},
                            .bias = true,
                            .integers = true,
                            .seed = 9});
  const std::vector<float> got = product(operands);
  for (std::int64_t row = 0; row < 70; ++row) {
    for (std::int64_t output = 0; output < 96; ++output) {
      ASSERT_EQ(static_cast<double>(got[static_cast<std::size_t>(row * 96 + output)]),
                operands.reference(row, output))
          << "row " << row << " output " << output;
    }
  }
}

TEST_F(CudaMatmulFloat8, EveryCodeHasItsValue) {
  // Output o takes code o from input 0, times 1, whatever its place in a word.
  for (const std::int64_t place : {0, 1, 2, 3, 13, 127}) {
    float8_operands operands({.rows = 1, .outputs = 256, .run_ends = {128}, .seed = 2});
    std::fill(operands.input.begin(), operands.input.end(), to_bfloat16(0.0F));
    operands.input[static_cast<std::size_t>(place)] = to_bfloat16(1.0F);
    std::fill(operands.scales.begin(), operands.scales.end(), 1.0F);
    for (std::int64_t o = 0; o < 256; ++o) {
      const bool nan = o % 128 == 127;
      operands.codes[static_cast<std::size_t>(o * 128 + place)] =
          static_cast<std::byte>(nan ? 0 : o);
    }
    const std::vector<float> got = product(operands);
    for (std::int64_t o = 0; o < 256; ++o) {
      if (o % 128 == 127) continue;
      EXPECT_EQ(got[static_cast<std::size_t>(o)], from_float8(static_cast<std::uint8_t>(o))) << o;
    }
  }
}

TEST_F(CudaMatmulFloat8, ARowHasTheSameBitsInEveryBatch) {
  for (const auto& ends : std::vector<std::vector<std::int64_t>>{
           {1024}, {2056}, {384, 768, 1152, 1536, 1920, 2304, 2688, 3072}, {128, 200}}) {
    float8_operands operands({.rows = 300, .outputs = 272, .run_ends = ends, .seed = 3});
    const packed_tensor packed = pack(operands, 0, 272);
    const std::vector<float> all = product(operands, packed, operands.input_view());
    for (const std::int64_t rows : {1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 128, 129, 200}) {
      for (const std::int64_t first : {std::int64_t{0}, 300 - rows}) {
        const std::vector<float> some =
            product(operands, packed, row_slice(operands.input_view(), first, rows));
        EXPECT_EQ(std::memcmp(some.data(), all.data() + first * 272, some.size() * 4), 0)
            << to_text(operands.of) << ": rows " << first << " + " << rows;
      }
    }
  }
}

TEST_F(CudaMatmulFloat8, OutputsDoNotDependOnTheirNeighbours) {
  for (const std::int64_t rows : {1, 20, 150}) {
    float8_operands operands({.rows = rows, .outputs = 304, .run_ends = {640}, .seed = 8});
    const std::vector<float> all = product(operands);
    const std::vector<float> some =
        product(operands, pack(operands, 48, 112), operands.input_view());
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < 112; ++i) {
        ASSERT_EQ(some[static_cast<std::size_t>(row * 112 + i)],
                  all[static_cast<std::size_t>(row * 304 + 48 + i)])
            << "row " << row << " output " << i;
      }
    }
  }
}

TEST_F(CudaMatmulFloat8, ARunIsWhatItIsAlone) {
  // The whole of two runs is the sum of each as a matrix of its own, added once.
  for (const std::int64_t rows : {1, 40}) {
    float8_operands whole({.rows = rows, .outputs = 80, .run_ends = {384, 896}, .seed = 4});
    const std::vector<float> both = product(whole);
    std::vector<float> sum(both.size(), 0.0F);
    for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 384}, {384, 896}}) {
      float8_operands part({.rows = rows, .outputs = 80, .run_ends = {end - begin}, .seed = 5});
      for (std::int64_t row = 0; row < rows; ++row) {
        std::copy_n(whole.input.begin() + row * 896 + begin, end - begin,
                    part.input.begin() + row * (end - begin));
      }
      for (std::int64_t o = 0; o < 80; ++o) {
        std::copy_n(whole.codes.begin() + o * 896 + begin, end - begin,
                    part.codes.begin() + o * (end - begin));
      }
      for (std::int64_t group = 0; group < 5; ++group) {
        std::copy_n(whole.scales.begin() + group * whole.segments + begin / 128, part.segments,
                    part.scales.begin() + group * part.segments);
      }
      const std::vector<float> alone = product(part);
      for (std::size_t i = 0; i < sum.size(); ++i)
        sum[i] = begin == 0 ? alone[i] : sum[i] + alone[i];
    }
    for (std::size_t i = 0; i < both.size(); ++i) ASSERT_EQ(both[i], sum[i]) << i;
  }
}

TEST_F(CudaMatmulFloat8, WithAGateHasTheBitsOfProductAndActivation) {
  for (const gate_kind kind : {gate_kind::silu, gate_kind::gelu_tanh, gate_kind::gelu}) {
    for (const std::int64_t rows : {1, 9, 40, 150}) {
      for (const std::int64_t half : {16, 48, 192}) {
        float8_operands operands({.rows = rows, .outputs = 2 * half, .run_ends = {520}, .seed = 6});
        for (float& scale : operands.scales) scale *= 0x1p-10F;
        const packed_tensor packed = pack(operands, 0, 2 * half);
        const tensor_view input = put(operands.input_view());
        cuda_testing::host_matrix columns(rows, 2 * half);
        cuda_testing::host_matrix fused(rows, half, 3);
        cuda_testing::host_matrix apart(rows, half, 3);
        const tensor_view product_there = put(columns.view());
        const tensor_view fused_there = put(fused.view());
        const tensor_view apart_there = put(apart.view());
        const auto gated = [&](const tensor_view& output) {
          run().gated_activation(here(), {column_slice(product_there, 0, half),
                                          column_slice(product_there, half, half), kind, output});
        };
        run().matmul(here(), {input, &packed, {}, product_there});
        gated(fused_there);
        get(fused_there, fused.view());
        run().matmul(here(), {input, &packed, {}, product_there});
        ASSERT_TRUE(here().synchronize().has_value());  // nothing waits to be joined any more
        gated(apart_there);
        get(apart_there, apart.view());
        EXPECT_TRUE(fused.same_bits(apart)) << "rows " << rows << " half " << half;
        EXPECT_FALSE(std::isnan(fused.at(rows - 1, half - 1)));
      }
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
