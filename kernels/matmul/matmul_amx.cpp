// Tiles of AMX. A tile of sums is 16 rows by 16 outputs; a step multiplies 16 rows of 32 inputs, of
// 64 as int8, with one KiB of weights. Up to 16 rows pass four blocks of outputs at once, which
// only streams weights; more rows pass two by two blocks, so that each tile loaded is used twice.
#include <algorithm>

#include "kernels/matmul/matmul_work.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>

#define TROUPE_AMX __attribute__((target("amx-tile,amx-bf16,amx-int8")))

namespace troupe::kernels::matmul_detail {
namespace {

constexpr std::int64_t tile_rows = 16;
constexpr int weight_row_bytes = 64;
constexpr std::int64_t weight_step_bytes = 1024;

// Source: Intel manual, "Tile configuration", 64 bytes for LDTILECFG.
struct alignas(64) tile_shapes {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// Tiles 0 .. 3 are sums, 4 and 5 input, 6 and 7 weights. The second half of the rows has sums 2 and
// 3 and input 5.
TROUPE_AMX void configure(std::int64_t upper_rows, std::int64_t lower_rows) {
  tile_shapes shapes;
  const auto set = [&](int tile, std::int64_t rows) {
    shapes.rows[tile] = static_cast<std::uint8_t>(rows);
    shapes.row_bytes[tile] = weight_row_bytes;
  };
  for (const int tile : {0, 1, 4}) set(tile, upper_rows);
  for (const int tile : {2, 3, 5}) set(tile, lower_rows);
  for (const int tile : {6, 7}) set(tile, tile_rows);
  // GCC 12 declares only 8 of the 64 bytes as read and would drop the stores above as dead.
  __asm__ volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

// Sum of tiles `sum`, `input`, `weights`, whose numbers the instructions hold. Weights as integers
// are unsigned: each code + 128.
#define TROUPE_TILE_DOT(sum, input, weights) \
  do {                                       \
    if constexpr (integers) {                \
      _tile_dpbsud(sum, input, weights);     \
    } else {                                 \
      _tile_dpbf16ps(sum, input, weights);   \
    }                                        \
  } while (false)

// Where one tile of sums or of the target begins.
template <class Float>
Float* tile_at(Float* first, std::int64_t stride, std::int64_t row, std::int64_t block) {
  return first + row * stride + block * tile_outputs;
}

template <bool integers, bool two_blocks>
TROUPE_AMX void multiply_two_by_two(const panel& work, std::int64_t row, std::int64_t block) {
  if (work.resume) {
    const std::int64_t stride = work.sums_stride * 4;
    _tile_loadd(0, tile_at(work.sums, work.sums_stride, row, block), stride);
    _tile_loadd(2, tile_at(work.sums, work.sums_stride, row + tile_rows, block), stride);
    if constexpr (two_blocks) {
      _tile_loadd(1, tile_at(work.sums, work.sums_stride, row, block + 1), stride);
      _tile_loadd(3, tile_at(work.sums, work.sums_stride, row + tile_rows, block + 1), stride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::byte* input = work.input + row / tile_rows * work.input_tile_bytes;
  const std::byte* weights = work.weights + block * work.block_bytes;
  for (std::int64_t step = 0; step < work.steps; ++step) {
    _tile_loadd(4, input, work.input_row_bytes);
    _tile_loadd(6, weights, weight_row_bytes);
    TROUPE_TILE_DOT(0, 4, 6);
    _tile_loadd(5, input + work.input_tile_bytes, work.input_row_bytes);
    TROUPE_TILE_DOT(2, 5, 6);
    if constexpr (two_blocks) {
      _tile_loadd(7, weights + work.block_bytes, weight_row_bytes);
      TROUPE_TILE_DOT(1, 4, 7);
      TROUPE_TILE_DOT(3, 5, 7);
    }
    input += work.input_step_bytes;
    weights += weight_step_bytes;
  }
  const std::int64_t stride = work.target_stride * 4;
  _tile_stored(0, tile_at(work.target, work.target_stride, row, block), stride);
  _tile_stored(2, tile_at(work.target, work.target_stride, row + tile_rows, block), stride);
  if constexpr (two_blocks) {
    _tile_stored(1, tile_at(work.target, work.target_stride, row, block + 1), stride);
    _tile_stored(3, tile_at(work.target, work.target_stride, row + tile_rows, block + 1), stride);
  }
}

template <bool integers>
TROUPE_AMX void multiply_pairs_of_tiles(const panel& work) {
  std::int64_t configured = 0;
  for (std::int64_t row = 0; row + tile_rows < work.rows; row += 2 * tile_rows) {
    const std::int64_t rows = std::min(2 * tile_rows, work.rows - row);
    if (rows != configured) configure(tile_rows, rows - tile_rows);
    configured = rows;
    std::int64_t block = 0;
    for (; block + 2 <= work.blocks; block += 2)
      multiply_two_by_two<integers, true>(work, row, block);
    if (block < work.blocks) multiply_two_by_two<integers, false>(work, row, block);
  }
}

// The next step's weights, while this one's are multiplied. The hardware looks ahead within a page
// only, and has four streams to follow: this brings 2 to 7 % at one row, nothing at 16; further
// ahead loses.
inline void fetch_tile(const std::byte* tile) {
#pragma GCC unroll 16
  for (std::int64_t row = 0; row < 16; ++row) {
    __builtin_prefetch(tile + row * weight_row_bytes, 0, 3);
  }
}

// The last 16 rows or fewer, from `row` on.
template <bool integers, int blocks>
TROUPE_AMX void multiply_row(const panel& work, std::int64_t row) {
  if (work.resume) {
    const std::int64_t stride = work.sums_stride * 4;
    _tile_loadd(0, tile_at(work.sums, work.sums_stride, row, 0), stride);
    if constexpr (blocks > 1) _tile_loadd(1, tile_at(work.sums, work.sums_stride, row, 1), stride);
    if constexpr (blocks > 2) _tile_loadd(2, tile_at(work.sums, work.sums_stride, row, 2), stride);
    if constexpr (blocks > 3) _tile_loadd(3, tile_at(work.sums, work.sums_stride, row, 3), stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::byte* input = work.input + row / tile_rows * work.input_tile_bytes;
  const std::byte* weights = work.weights;
  const std::int64_t next = work.block_bytes;
  for (std::int64_t step = 0; step < work.steps; ++step) {
    fetch_tile(weights + weight_step_bytes);
    if constexpr (blocks > 1) fetch_tile(weights + 1 * next + weight_step_bytes);
    if constexpr (blocks > 2) fetch_tile(weights + 2 * next + weight_step_bytes);
    if constexpr (blocks > 3) fetch_tile(weights + 3 * next + weight_step_bytes);
    _tile_loadd(4, input, work.input_row_bytes);
    _tile_loadd(6, weights, weight_row_bytes);
    TROUPE_TILE_DOT(0, 4, 6);
    if constexpr (blocks > 1) {
      _tile_loadd(7, weights + next, weight_row_bytes);
      TROUPE_TILE_DOT(1, 4, 7);
    }
    if constexpr (blocks > 2) {
      _tile_loadd(6, weights + 2 * next, weight_row_bytes);
      TROUPE_TILE_DOT(2, 4, 6);
    }
    if constexpr (blocks > 3) {
      _tile_loadd(7, weights + 3 * next, weight_row_bytes);
      TROUPE_TILE_DOT(3, 4, 7);
    }
    input += work.input_step_bytes;
    weights += weight_step_bytes;
  }
  const std::int64_t stride = work.target_stride * 4;
  float* const to = tile_at(work.target, work.target_stride, row, 0);
  _tile_stored(0, to, stride);
  if constexpr (blocks > 1) _tile_stored(1, to + 1 * tile_outputs, stride);
  if constexpr (blocks > 2) _tile_stored(2, to + 2 * tile_outputs, stride);
  if constexpr (blocks > 3) _tile_stored(3, to + 3 * tile_outputs, stride);
}

template <bool integers>
TROUPE_AMX void multiply_panel(const panel& work) {
  // The tile loads below do not tell the compiler what they read.
  __asm__ volatile("" : : : "memory");
  multiply_pairs_of_tiles<integers>(work);
  const std::int64_t rest = work.rows % (2 * tile_rows);
  if (rest > 0 && rest <= tile_rows) {
    const std::int64_t row = work.rows - rest;
    configure(rest, rest);
    switch (work.blocks) {
      case 1:
        multiply_row<integers, 1>(work, row);
        break;
      case 2:
        multiply_row<integers, 2>(work, row);
        break;
      case 3:
        multiply_row<integers, 3>(work, row);
        break;
      default:
        multiply_row<integers, 4>(work, row);
        break;
    }
  }
  _tile_release();  // nothing to save when the system switches threads
}

}  // namespace

panel_kernel amx_panel() { return {multiply_panel<false>, tile_rows}; }
panel_kernel amx_int8_panel() { return {multiply_panel<true>, tile_rows}; }

}  // namespace troupe::kernels::matmul_detail

#else

namespace troupe::kernels::matmul_detail {
panel_kernel amx_panel() { return {}; }
panel_kernel amx_int8_panel() { return {}; }
}  // namespace troupe::kernels::matmul_detail

#endif
