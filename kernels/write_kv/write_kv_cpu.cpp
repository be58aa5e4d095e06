#include "kernels/write_kv/write_kv.hpp"

#include "kernels/row_tasks.hpp"
#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/write_kv/write_kv_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#include "kernels/simd_inl.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

template <class T>
void convert(const float* from, T* to, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + width <= count; i += width) store_all(hn::LoadU(tag, from + i), to + i);
  if (i < count) store_some(load_some(from + i, count - i), to + i, count - i);
}

template <class T>
void write_tokens(const write_kv_args& args, std::int64_t begin, std::int64_t end) {
  const kv_view& cache = args.cache;
  for (std::int64_t token = begin; token < end; ++token) {
    const std::int64_t slot = args.slots[static_cast<std::size_t>(token)];
    const float* const keys = args.keys.row<float>(token);
    const float* const values = args.values.row<float>(token);
    for (std::int64_t head = 0; head < cache.heads; ++head) {
      const std::int64_t from = head * cache.head_dim;
      const std::int64_t to = (head * cache.blocks * kv_block_tokens + slot) * cache.head_dim;
      convert(keys + from, reinterpret_cast<T*>(cache.keys.address) + to, cache.head_dim);
      convert(values + from, reinterpret_cast<T*>(cache.values.address) + to, cache.head_dim);
    }
  }
}

}  // namespace

void write_kv_rows(const write_kv_args& args, std::int64_t begin, std::int64_t end) {
  if (args.cache.type == dtype::float32) {
    write_tokens<float>(args, begin, end);
  } else {
    write_tokens<std::uint16_t>(args, begin, end);
  }
}

}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels {

void write_kv(instruction_path path, thread_pool& pool, const write_kv_args& args) {
  const kv_view& cache = args.cache;
  const std::int64_t tokens = args.keys.rows();
  TROUPE_CHECK(args.keys.type == dtype::float32 && args.values.type == dtype::float32);
  TROUPE_CHECK(args.values.rows() == tokens);
  TROUPE_CHECK(args.keys.columns() == cache.heads * cache.head_dim);
  TROUPE_CHECK(args.values.columns() == cache.heads * cache.head_dim);
  TROUPE_CHECK(static_cast<std::int64_t>(args.slots.size()) == tokens);
  for (const std::int64_t slot : args.slots) {
    TROUPE_CHECK(slot >= 0 && slot < cache.blocks * kv_block_tokens);
  }
  for_row_ranges(pool, tokens, 2 * args.keys.columns(), [&](std::int64_t begin, std::int64_t end) {
    TROUPE_SIMD_CALL(path, write_kv_rows, args, begin, end);
  });
}

}  // namespace troupe::kernels
#endif
