#include "kernels/gated_activation/gated_activation.hpp"

#include <limits>

#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

constexpr gate_kind kinds[] = {gate_kind::silu, gate_kind::gelu_tanh, gate_kind::gelu};

[[nodiscard]] std::string name_of(gate_kind kind) {
  if (kind == gate_kind::silu) return "silu";
  return kind == gate_kind::gelu_tanh ? "gelu_tanh" : "gelu";
}

// Relative error of one output in epsilons u = 2^-24. The exponential has below 1.1 ulp = 2.2 u.
//   silu: 1 + e(-x) passes on at most the 2.2 u and adds 1; division, product with up and the
//     reference's rounding 1 each: 6.2 u.
//   gelu_tanh: the exponent p = x (c1 + c2 x^2) has 3 u of c2, 1 of x^2, 1 of the multiply-add, 1
//   of
//     c1 and 1 of the product with x: 7 u |p| in e(p), of which e / (1 + e) reaches the result.
//   gelu: the fit of Q 0.8 u; t = 1 / (1 + 0.35 a) 2 u, times |t Q' / Q| <= 2.5; Horner with
//     sum |c_i| t^i / Q <= 2.3 rounds 2 u a step on a falling sum: 5 u. Tail: e 2.2 u, its
//     correction 1, two products 2. 1 - tail 1, times x 1, times up 1, reference 1: at most 20 u.
[[nodiscard]] double relative_bound(gate_kind kind, double x) {
  if (kind == gate_kind::silu) return 6.2 * float_epsilon;
  if (kind == gate_kind::gelu) return 20.0 * float_epsilon;
  const double p = -1.5957691216 * (x + 0.044715 * x * x * x);
  return (7.0 * std::fabs(p) / (1.0 + std::exp(-p)) + 6.2) * float_epsilon;
}

template <class T>
void expect_near_reference(instruction_path path, gate_kind kind, padded_matrix<>& gate,
                           padded_matrix<>& up, int threads) {
  thread_pool pool({.threads = threads});
  padded_matrix<T> output(gate.rows(), gate.columns(), 4);
  padded_matrix<> expected(gate.rows(), gate.columns(), 0);
  gated_activation(path, pool,
                   {.gate = gate.view(), .up = up.view(), .kind = kind, .output = output.view()});
  gated_activation_reference(
      {.gate = gate.view(), .up = up.view(), .kind = kind, .output = expected.view()});
  const double rounding = sizeof(T) == 2 ? bfloat16_epsilon : 0.0;
  const auto tolerance = [&](std::int64_t row, std::int64_t i, double want) {
    const double relative = relative_bound(kind, gate.at(row, i)) + rounding;
    // Where e overflows, or e^-87 underflows, the activation is -0 instead of at most 1e-36.
    return std::fabs(want) * relative + 1e-36 * (1.0 + std::fabs(up.value(row, i)));
  };
  expect_near(output, expected, tolerance, std::string(to_string(path)) + " " + name_of(kind));
  output.expect_padding_untouched();
}

TEST(GatedActivation, StaysWithinDerivedBoundOverTheWholeRange) {
  constexpr std::int64_t points = 40'001;
  padded_matrix<> gate(3, points);
  padded_matrix<> up(3, points);
  up.fill(51);
  for (std::int64_t i = 0; i < points; ++i) {
    const double place = (static_cast<double>(i) - 20'000.0) / 20'000.0;
    gate.at(0, i) = static_cast<float>(100.0 * place);
    gate.at(1, i) = static_cast<float>(6.0 * place);
    gate.at(2, i) = static_cast<float>(std::copysign(std::exp2(-140.0 * std::fabs(place)), place));
  }
  for (const instruction_path path : paths()) {
    for (const gate_kind kind : kinds) expect_near_reference<float>(path, kind, gate, up, 1);
  }
}

TEST(GatedActivation, StaysWithinDerivedBoundForAnyShape) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{0, 9},
                                      {2, 0},
                                      {1, 1},
                                      {3, 31},
                                      {4, 48},
                                      {257, 515}}) {
    padded_matrix<> gate(rows, columns, 3);
    padded_matrix<> up(rows, columns, 8);
    gate.fill(52, 4.0);
    up.fill(53);
    for (const instruction_path path : paths()) {
      for (const gate_kind kind : kinds) {
        expect_near_reference<float>(path, kind, gate, up, 3);
        expect_near_reference<std::uint16_t>(path, kind, gate, up, 1);
      }
    }
  }
}

TEST(GatedActivation, GivesAnElementTheSameBitsInAnyColumnRangeRowAndThread) {
  constexpr std::int64_t columns = 203;
  for (const instruction_path path : paths()) {
    for (const gate_kind kind : kinds) {
      padded_matrix<> gate(33, columns);
      padded_matrix<> up(33, columns);
      gate.fill(54, 3.0);
      up.fill(55);
      padded_matrix<> whole(33, columns, 0);
      thread_pool pool({.threads = 3});
      gated_activation(
          path, pool, {.gate = gate.view(), .up = up.view(), .kind = kind, .output = whole.view()});
      generator random(56);
      for (int i = 0; i < 300; ++i) {
        const auto begin = static_cast<std::int64_t>(random.bits() % columns);
        const auto count = 1 + static_cast<std::int64_t>(
                                   random.bits() % static_cast<std::uint64_t>(columns - begin));
        const auto row = static_cast<std::int64_t>(random.bits() % 33);
        padded_matrix<> part(1, count);
        thread_pool single({.threads = 1});
        gated_activation(path, single,
                         {.gate = column_slice(row_slice(gate.view(), row, 1), begin, count),
                          .up = column_slice(row_slice(up.view(), row, 1), begin, count),
                          .kind = kind,
                          .output = part.view()});
        ASSERT_TRUE(same_bits(part.cells(0, 0, count), whole.cells(row, begin, begin + count)))
            << to_string(path) << " " << name_of(kind) << " row " << row << " columns [" << begin
            << ", " << begin + count << "), seed 56";
      }
    }
  }
}

TEST(GatedActivation, KeepsNanAndTheLimits) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const instruction_path path : paths()) {
    for (const gate_kind kind : kinds) {
      thread_pool pool({.threads = 1});
      std::vector<float> gate{std::nanf(""), infinity, 1e30F, -1e30F, 0.0F, 200.0F, -200.0F};
      std::vector<float> up(gate.size(), 1.0F);
      std::vector<float> out(gate.size());
      const auto columns = static_cast<std::int64_t>(gate.size());
      gated_activation(path, pool,
                       {.gate = matrix_view(gate.data(), 1, columns),
                        .up = matrix_view(up.data(), 1, columns),
                        .kind = kind,
                        .output = matrix_view(out.data(), 1, columns)});
      const std::string what = std::string(to_string(path)) + " " + name_of(kind);
      EXPECT_TRUE(std::isnan(out[0])) << what;
      EXPECT_EQ(std::vector<float>(out.begin() + 1, out.end()),
                (std::vector<float>{infinity, 1e30F, 0.0F, 0.0F, 200.0F, 0.0F}))
          << what;
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
