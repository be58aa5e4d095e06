#include "kernels/gated_activation/gated_activation.hpp"

#include "kernels/row_tasks.hpp"
#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gated_activation/gated_activation_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#include "kernels/simd_inl.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

HWY_INLINE lanes silu(lanes x) {
  return hn::Div(x, hn::Add(hn::Set(tag, 1.0F), exponential(hn::Neg(x))));
}

HWY_INLINE lanes gelu_tanh(lanes x) {
  // -2 sqrt(2 / pi) = -1.5957691; a polynomial in x^2, so that the last product rounds like x.
  const lanes square = hn::Mul(x, x);
  const lanes inner =
      hn::MulAdd(square, hn::Set(tag, 0.044715F * -1.5957691F), hn::Set(tag, -1.5957691F));
  return hn::Div(x, hn::Add(hn::Set(tag, 1.0F), exponential(hn::Mul(x, inner))));
}

// x Phi(x). With a = |x| and t = 1 / (1 + 0.35 a), Phi(-a) = exp(-a^2 / 2) Q(t): Q is the minimax
// polynomial without constant term on 0 <= a <= 13.5, 5e-8 relative with these coefficients.
HWY_INLINE lanes gelu(lanes x) {
  const lanes one = hn::Set(tag, 1.0F);
  const lanes a = hn::Abs(x);
  const lanes t = hn::Div(one, hn::MulAdd(a, hn::Set(tag, 0.35F), one));
  lanes q = hn::Set(tag, -0x1.dd381cp-6F);
  q = hn::MulAdd(q, t, hn::Set(tag, 0x1.26a6acp-3F));
  q = hn::MulAdd(q, t, hn::Set(tag, -0x1.05a170p-2F));
  q = hn::MulAdd(q, t, hn::Set(tag, 0x1.4577e8p-3F));
  q = hn::MulAdd(q, t, hn::Set(tag, -0x1.77b4e6p-6F));
  q = hn::MulAdd(q, t, hn::Set(tag, 0x1.afd854p-4F));
  q = hn::MulAdd(q, t, hn::Set(tag, 0x1.eaeadcp-4F));
  q = hn::MulAdd(q, t, hn::Set(tag, 0x1.1e6e68p-3F));
  q = hn::MulAdd(q, t, hn::Set(tag, 0x1.1df1eap-3F));
  q = hn::Mul(q, t);
  // The rounding of a^2 would be up to 88 ulp of its exponential: carried along to first order.
  const lanes bounded = hn::Min(a, hn::Set(tag, 14.0F));
  const lanes square = hn::Mul(bounded, bounded);
  const lanes lost = hn::MulSub(bounded, bounded, square);
  const lanes half = hn::Set(tag, 0.5F);
  const lanes e = exponential(hn::Neg(hn::Mul(half, square)));
  const lanes tail = hn::Mul(q, hn::NegMulAdd(hn::Mul(half, lost), e, e));
  const lanes share = hn::IfThenElse(hn::Lt(x, hn::Zero(tag)), tail, hn::Sub(one, tail));
  return hn::Mul(x, share);
}

template <gate_kind kind>
HWY_INLINE lanes activate(lanes x) {
  if constexpr (kind == gate_kind::silu) return silu(x);
  if constexpr (kind == gate_kind::gelu_tanh) return gelu_tanh(x);
  if constexpr (kind == gate_kind::gelu) return gelu(x);
}

template <gate_kind kind, class T>
void gate_row(const float* gate, const float* up, T* output, std::int64_t columns) {
  std::int64_t i = 0;
  for (; i + width <= columns; i += width) {
    const lanes active = activate<kind>(hn::LoadU(tag, gate + i));
    store_all(hn::Mul(active, hn::LoadU(tag, up + i)), output + i);
  }
  if (const std::int64_t rest = columns - i; rest > 0) {
    const lanes active = activate<kind>(load_some(gate + i, rest));
    store_some(hn::Mul(active, load_some(up + i, rest)), output + i, rest);
  }
}

template <gate_kind kind>
void gate_rows(const gated_activation_args& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const float* const gate = args.gate.row<float>(row);
    const float* const up = args.up.row<float>(row);
    if (args.output.type == dtype::float32) {
      gate_row<kind>(gate, up, args.output.row<float>(row), args.gate.columns());
    } else {
      gate_row<kind>(gate, up, args.output.row<std::uint16_t>(row), args.gate.columns());
    }
  }
}

}  // namespace

void gated_rows(const gated_activation_args& args, std::int64_t begin, std::int64_t end) {
  switch (args.kind) {
    case gate_kind::silu:
      return gate_rows<gate_kind::silu>(args, begin, end);
    case gate_kind::gelu_tanh:
      return gate_rows<gate_kind::gelu_tanh>(args, begin, end);
    case gate_kind::gelu:
      return gate_rows<gate_kind::gelu>(args, begin, end);
  }
}

}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels {

void gated_activation(instruction_path path, thread_pool& pool, const gated_activation_args& args) {
  const std::int64_t rows = args.gate.rows();
  const std::int64_t columns = args.gate.columns();
  TROUPE_CHECK(args.gate.type == dtype::float32 && args.up.type == dtype::float32);
  TROUPE_CHECK(args.up.rows() == rows && args.up.columns() == columns);
  TROUPE_CHECK(args.output.rows() == rows && args.output.columns() == columns);
  // An exponential and a division cost about four plain elements.
  for_row_ranges(pool, rows, 4 * columns, [&](std::int64_t begin, std::int64_t end) {
    TROUPE_SIMD_CALL(path, gated_rows, args, begin, end);
  });
}

}  // namespace troupe::kernels
#endif
