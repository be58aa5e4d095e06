#include "kernels/add/add.hpp"

#include "kernels/row_tasks.hpp"
#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/add/add_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#include "kernels/simd_inl.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

template <bool biased>
void add_row(float* target, const float* addend, const float* bias, std::int64_t columns) {
  std::int64_t i = 0;
  for (; i + width <= columns; i += width) {
    lanes value = hn::LoadU(tag, addend + i);
    if constexpr (biased) value = hn::Add(value, hn::LoadU(tag, bias + i));
    store_all(hn::Add(hn::LoadU(tag, target + i), value), target + i);
  }
  if (const std::int64_t rest = columns - i; rest > 0) {
    lanes value = load_some(addend + i, rest);
    if constexpr (biased) value = hn::Add(value, load_some(bias + i, rest));
    store_some(hn::Add(load_some(target + i, rest), value), target + i, rest);
  }
}

}  // namespace

void add_rows(const add_args& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    float* const target = args.target.row<float>(row);
    const float* const addend = args.addend.row<float>(row);
    if (args.bias.empty()) {
      add_row<false>(target, addend, nullptr, args.target.columns());
    } else {
      add_row<true>(target, addend, args.bias.data(), args.target.columns());
    }
  }
}

}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels {

void add(instruction_path path, thread_pool& pool, const add_args& args) {
  const std::int64_t columns = args.target.columns();
  TROUPE_CHECK(args.target.type == dtype::float32 && args.addend.type == dtype::float32);
  TROUPE_CHECK(args.addend.rows() == args.target.rows() && args.addend.columns() == columns);
  TROUPE_CHECK(args.bias.empty() || static_cast<std::int64_t>(args.bias.size()) == columns);
  for_row_ranges(pool, args.target.rows(), columns, [&](std::int64_t begin, std::int64_t end) {
    TROUPE_SIMD_CALL(path, add_rows, args, begin, end);
  });
}

}  // namespace troupe::kernels
#endif
