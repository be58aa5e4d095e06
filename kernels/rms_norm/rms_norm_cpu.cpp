#include <cmath>

#include "kernels/rms_norm/rms_norm.hpp"
#include "kernels/row_tasks.hpp"
#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm/rms_norm_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#include "kernels/simd_inl.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

HWY_INLINE lanes add_square(lanes sum, lanes x) { return hn::MulAdd(x, x, sum); }

float sum_of_squares(const float* x, std::int64_t size) {
  lanes sums[4] = {hn::Zero(tag), hn::Zero(tag), hn::Zero(tag), hn::Zero(tag)};
  std::int64_t i = 0;
  for (; i + 4 * width <= size; i += 4 * width) {
    sums[0] = add_square(sums[0], hn::LoadU(tag, x + i));
    sums[1] = add_square(sums[1], hn::LoadU(tag, x + i + width));
    sums[2] = add_square(sums[2], hn::LoadU(tag, x + i + 2 * width));
    sums[3] = add_square(sums[3], hn::LoadU(tag, x + i + 3 * width));
  }
  for (int part = 0; i < size; i += width, ++part) {
    const std::int64_t rest = size - i;
    const lanes value = rest >= width ? hn::LoadU(tag, x + i) : load_some(x + i, rest);
    sums[part] = add_square(sums[part], value);
  }
  const lanes sum = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
  return hn::GetLane(hn::SumOfLanes(tag, sum));
}

// `x` and `output` may be the same memory.
template <class T>
void norm_one(const float* x, const float* weight, float epsilon, T* output, std::int64_t size) {
  const float mean = sum_of_squares(x, size) / static_cast<float>(size);
  const lanes scale = hn::Set(tag, 1.0F / std::sqrt(mean + epsilon));
  std::int64_t i = 0;
  for (; i + width <= size; i += width) {
    const lanes normed = hn::Mul(hn::LoadU(tag, x + i), scale);
    store_all(hn::Mul(normed, hn::LoadU(tag, weight + i)), output + i);
  }
  if (const std::int64_t rest = size - i; rest > 0) {
    const lanes normed = hn::Mul(load_some(x + i, rest), scale);
    store_some(hn::Mul(normed, load_some(weight + i, rest)), output + i, rest);
  }
}

template <class T>
void norm_rows(const rms_norm_args& args, std::int64_t begin, std::int64_t end) {
  const auto size = static_cast<std::int64_t>(args.weight.size());
  for (std::int64_t row = begin; row < end; ++row) {
    const float* const x = args.input.row<float>(row);
    T* const output = args.output.row<T>(row);
    for (std::int64_t first = 0; first < args.input.columns(); first += size) {
      norm_one(x + first, args.weight.data(), args.epsilon, output + first, size);
    }
  }
}

}  // namespace

void rms_norm_rows(const rms_norm_args& args, std::int64_t begin, std::int64_t end) {
  if (args.output.type == dtype::float32) {
    norm_rows<float>(args, begin, end);
  } else {
    norm_rows<std::uint16_t>(args, begin, end);
  }
}

}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels {

void rms_norm(instruction_path path, thread_pool& pool, const rms_norm_args& args) {
  const tensor_view& input = args.input;
  const auto size = static_cast<std::int64_t>(args.weight.size());
  TROUPE_CHECK(input.type == dtype::float32);
  TROUPE_CHECK(size == (input.shape[2] == 1 ? input.shape[1] : input.shape[2]));
  TROUPE_CHECK(args.output.rows() == input.rows() && args.output.columns() == input.columns());
  if (size == 0) return;
  for_row_ranges(pool, input.rows(), input.columns(), [&](std::int64_t begin, std::int64_t end) {
    TROUPE_SIMD_CALL(path, rms_norm_rows, args, begin, end);
  });
}

}  // namespace troupe::kernels
#endif
