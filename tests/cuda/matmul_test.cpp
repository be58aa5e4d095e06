// Matrix products on CUDA against the double reference, and bit against bit.
#include <random>

#include "tests/cuda/cuda_case.hpp"
#include "tests/kernels/matmul_case.hpp"

namespace troupe::kernels {
namespace {

class CudaMatmul : public cuda_testing::cuda_test {
 protected:
  // Outputs [first, first + count) over inputs up to the last of `ends`.
  packed_tensor pack(const matmul_operands& operands, std::int64_t first, std::int64_t count,
                     std::vector<std::int64_t> ends, std::int64_t first_input = 0) {
    const auto element = static_cast<std::int64_t>(size_of(operands.of.type));
    const std::int64_t inputs = ends.back();
    auto packed = packed_tensor::allocate(
        {.outputs = count, .run_ends = std::move(ends), .type = operands.of.type, .on = &on()});
    EXPECT_TRUE(packed.has_value());
    std::vector<std::byte> rows;
    for (std::int64_t output = first; output < first + count; ++output) {
      const std::byte* const from =
          operands.weights.data() + (output * operands.of.inputs() + first_input) * element;
      rows.insert(rows.end(), from, from + inputs * element);
    }
    packed->pack({.rows = rows,
                  .source = operands.of.type == dtype::float32 ? source_dtype::float32
                                                               : source_dtype::bfloat16,
                  .first_output = 0,
                  .outputs = count});
    EXPECT_TRUE(on().settle().has_value());
    return *std::move(packed);
  }

  std::vector<float> product(matmul_operands& operands, const packed_tensor& packed,
                             tensor_view input) {
    const matmul_case& of = operands.of;
    const std::int64_t stride = of.outputs + of.output_gap;
    std::vector<float> output(static_cast<std::size_t>(input.rows() * stride),
                              matmul_operands::guard);
    tensor_view view = matrix_view(output.data(), input.rows(), packed.outputs());
    view.row_stride = stride;
    const tensor_view there = put(view);
    const tensor_view input_there = put(input);
    run().matmul(here(), {input_there, &packed, operands.bias, there});
    get(there, view);
    return output;
  }
  std::vector<float> product(matmul_operands& operands) {
    return product(operands, pack(operands, 0, operands.of.outputs, operands.of.run_ends),
                   operands.input_view());
  }
};

// As matmul_operands::tolerance, but tensor cores align the 16 products of a step and the sum to
// the largest and cut what is below 2^-24 of it (Fasi et al., "Numerical behavior of NVIDIA tensor
// cores", PeerJ 2021): each step loses up to 17 cuts of 2^-23 of the magnitude so far.
double tolerance(const matmul_operands& operands, std::int64_t row, std::int64_t output) {
  return 17.0 * 2.0 / 16.0 * operands.tolerance(row, output) + 1e-30;
}

void expect_near(matmul_operands& operands, const std::vector<float>& got) {
  const matmul_case& of = operands.of;
  SCOPED_TRACE(to_text(of));
  const std::vector<float> want = operands.reference();
  double worst = 0;
  std::string where;
  for (std::int64_t row = 0; row < of.rows; ++row) {
    for (std::int64_t output = 0; output < of.outputs + of.output_gap; ++output) {
      const auto at = static_cast<std::size_t>(row * (of.outputs + of.output_gap) + output);
      if (at >= got.size()) continue;
      if (output >= of.outputs) {
        ASSERT_EQ(got[at], matmul_operands::guard) << "row " << row << " output " << output;
        continue;
      }
      const double excess = std::abs(static_cast<double>(got[at]) - static_cast<double>(want[at])) /
                            tolerance(operands, row, output);
      if (!(excess <= worst)) {
        worst = excess;
        where = "row " + std::to_string(row) + " output " + std::to_string(output) + ": " +
                std::to_string(got[at]) + " instead of " + std::to_string(want[at]);
      }
    }
  }
  EXPECT_LE(worst, 1.0) << where;
}

TEST_F(CudaMatmul, IsNearTheReference) {
  const std::vector<std::vector<std::int64_t>> runs{{32},
                                                    {64},
                                                    {72},
                                                    {8},
                                                    {256},
                                                    {264},
                                                    {1024},
                                                    {520, 1048},
                                                    {64, 128, 160, 512},
                                                    {0, 0, 256, 256, 300, 304, 608, 800},
                                                    {128, 256, 384, 512, 640, 768, 896, 1024}};
  std::uint32_t seed = 1;
  for (const auto& ends : runs) {
    for (const std::int64_t rows : {1, 3, 8, 9, 16, 17, 65, 128, 200, 300}) {
      for (const std::int64_t outputs : {1, 16, 33, 128, 200}) {
        matmul_operands operands({.rows = rows,
                                  .outputs = outputs,
                                  .run_ends = ends,
                                  .bias = seed % 2 == 0,
                                  .input_gap = seed % 3 == 0 ? 8 : 0,
                                  .output_gap = seed % 4,
                                  .seed = seed});
        expect_near(operands, product(operands));
        ++seed;
      }
    }
  }
}

TEST_F(CudaMatmul, TakesFloat32AndUnalignedRowsToo) {
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    for (const std::int64_t rows : {1, 5, 40}) {
      matmul_operands operands({.type = type,
                                .rows = rows,
                                .outputs = 37,
                                .run_ends = {33, 65, 131, 203},
                                .bias = true,
                                .seed = 5});
      expect_near(operands, product(operands));
    }
  }
}

TEST_F(CudaMatmul, SumsOfWholeNumbersAreExact) {
  matmul_operands operands(
      {.rows = 70, .outputs = 96, .run_ends = {512, 2048}, .integers = true, .seed = 9});
  EXPECT_EQ(product(operands), operands.reference());
}

TEST_F(CudaMatmul, ARowHasTheSameBitsInEveryBatch) {
  for (const auto& ends : std::vector<std::vector<std::int64_t>>{
           {1024}, {2056}, {384, 768, 1152, 1536, 1920, 2304, 2688, 3072}, {40, 120}}) {
    matmul_operands operands({.rows = 300, .outputs = 272, .run_ends = ends, .seed = 3});
    const packed_tensor packed = pack(operands, 0, 272, ends);
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

TEST_F(CudaMatmul, HalvesOfTheRunsAddUpToTheWhole) {
  // What two ranks of tensor parallel 2 compute, added once: the root of the tree.
  const std::vector<std::int64_t> ends{96, 192, 288, 384, 512, 640, 768, 896};
  for (const std::int64_t rows : {1, 40}) {
    matmul_operands operands({.rows = rows, .outputs = 80, .run_ends = ends, .seed = 4});
    const std::vector<float> whole = product(operands);
    const packed_tensor left = pack(operands, 0, 80, {96, 192, 288, 384});
    const packed_tensor right = pack(operands, 0, 80, {128, 256, 384, 512}, 384);
    const std::vector<float> a =
        product(operands, left, column_slice(operands.input_view(), 0, 384));
    const std::vector<float> b =
        product(operands, right, column_slice(operands.input_view(), 384, 512));
    for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_EQ(a[i] + b[i], whole[i]) << i;
  }
}

TEST_F(CudaMatmul, OutputsDoNotDependOnTheirNeighbours) {
  matmul_operands operands({.rows = 20, .outputs = 300, .run_ends = {640}, .seed = 8});
  const std::vector<float> all = product(operands);
  const std::vector<float> some =
      product(operands, pack(operands, 37, 100, {640}), operands.input_view());
  for (std::int64_t row = 0; row < 20; ++row) {
    for (std::int64_t i = 0; i < 100; ++i) {
      ASSERT_EQ(some[static_cast<std::size_t>(row * 300 + i)],
                all[static_cast<std::size_t>(row * 300 + 37 + i)]);
    }
  }
}

TEST_F(CudaMatmul, WithAGateHasTheBitsOfProductAndActivation) {
  for (const gate_kind kind : {gate_kind::silu, gate_kind::gelu_tanh, gate_kind::gelu}) {
    for (const std::int64_t rows : {1, 9, 40, 150}) {
      for (const std::int64_t half : {8, 24, 100, 192}) {
        matmul_operands operands({.rows = rows, .outputs = 2 * half, .run_ends = {520}, .seed = 6});
        const packed_tensor packed = pack(operands, 0, 2 * half, {520});
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
