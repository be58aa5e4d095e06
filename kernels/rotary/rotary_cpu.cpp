#include "kernels/rotary/rotary.hpp"

#include "kernels/row_tasks.hpp"
#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rotary/rotary_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#include "kernels/simd_inl.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

void rotate_head(float* first, float* second, const float* cosine, const float* sine,
                 std::int64_t half) {
  std::int64_t i = 0;
  for (; i + width <= half; i += width) {
    const lanes a = hn::LoadU(tag, first + i);
    const lanes b = hn::LoadU(tag, second + i);
    const lanes c = hn::LoadU(tag, cosine + i);
    const lanes s = hn::LoadU(tag, sine + i);
    store_all(hn::NegMulAdd(b, s, hn::Mul(a, c)), first + i);
    store_all(hn::MulAdd(a, s, hn::Mul(b, c)), second + i);
  }
  if (const std::int64_t rest = half - i; rest > 0) {
    const lanes a = load_some(first + i, rest);
    const lanes b = load_some(second + i, rest);
    const lanes c = load_some(cosine + i, rest);
    const lanes s = load_some(sine + i, rest);
    store_some(hn::NegMulAdd(b, s, hn::Mul(a, c)), first + i, rest);
    store_some(hn::MulAdd(a, s, hn::Mul(b, c)), second + i, rest);
  }
}

}  // namespace

void rotary_rows(const rotary_args& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t half = args.heads.shape[2] / 2;
  for (std::int64_t token = begin; token < end; ++token) {
    const float* const cosine = args.cos.data() + token * half;
    const float* const sine = args.sin.data() + token * half;
    for (std::int64_t head = 0; head < args.heads.shape[1]; ++head) {
      float* const x = args.heads.row<float>(token) + head * 2 * half;
      rotate_head(x, x + half, cosine, sine, half);
    }
  }
}

}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels {

void rotary(instruction_path path, thread_pool& pool, const rotary_args& args) {
  const std::int64_t tokens = args.heads.rows();
  const std::int64_t head_dim = args.heads.shape[2];
  TROUPE_CHECK(args.heads.type == dtype::float32 && head_dim % 2 == 0);
  TROUPE_CHECK(static_cast<std::int64_t>(args.cos.size()) == tokens * (head_dim / 2));
  TROUPE_CHECK(args.sin.size() == args.cos.size());
  for_row_ranges(pool, tokens, args.heads.columns(), [&](std::int64_t begin, std::int64_t end) {
    TROUPE_SIMD_CALL(path, rotary_rows, args, begin, end);
  });
}

}  // namespace troupe::kernels
#endif
