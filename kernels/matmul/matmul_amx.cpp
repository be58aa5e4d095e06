// Tiles of AMX. A tile of sums is 16 rows by 16 outputs; a step multiplies 16 rows of 32 inputs
// with one KiB of weights. Up to 16 rows pass four blocks of outputs at once, which only streams
// weights; more rows pass two by two blocks, so that each tile loaded is used twice.
#include <algorithm>

#include "kernels/matmul/matmul_work.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>

#define TROUPE_AMX __attribute__((target("amx-tile,amx-bf16")))

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

template <bool two_blocks>
TROUPE_AMX void multiply_two_by_two(const panel& work, const std::byte* input,
                                    const std::byte* weights, float* sums) {
  const auto stride = static_cast<int>(work.sums_stride * 4);
  float* const lower = sums + tile_rows * work.sums_stride;
  if (work.resume) {
    _tile_loadd(0, sums, stride);
    _tile_loadd(2, lower, stride);
    if constexpr (two_blocks) {
      _tile_loadd(1, sums + tile_outputs, stride);
      _tile_loadd(3, lower + tile_outputs, stride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::int64_t input_stride = work.input_row_bytes;
  for (std::int64_t step = 0; step < work.steps; ++step) {
    _tile_loadd(4, input, input_stride);
    _tile_loadd(6, weights, weight_row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, input + work.input_tile_bytes, input_stride);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (two_blocks) {
      _tile_loadd(7, weights + work.block_bytes, weight_row_bytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    input += work.input_step_bytes;
    weights += weight_step_bytes;
  }
  _tile_stored(0, sums, stride);
  _tile_stored(2, lower, stride);
  if constexpr (two_blocks) {
    _tile_stored(1, sums + tile_outputs, stride);
    _tile_stored(3, lower + tile_outputs, stride);
  }
}

TROUPE_AMX void multiply_pairs_of_tiles(const panel& work) {
  std::int64_t configured = 0;
  for (std::int64_t row = 0; row < work.rows; row += 2 * tile_rows) {
    const std::int64_t rows = std::min(2 * tile_rows, work.rows - row);
    if (rows <= tile_rows) break;
    if (rows != configured) configure(tile_rows, rows - tile_rows);
    configured = rows;
    const std::byte* input = work.input + row / tile_rows * work.input_tile_bytes;
    for (std::int64_t block = 0; block < work.blocks; block += 2) {
      const std::byte* weights = work.weights + block * work.block_bytes;
      float* sums = work.sums + row * work.sums_stride + block * tile_outputs;
      if (block + 1 < work.blocks) {
        multiply_two_by_two<true>(work, input, weights, sums);
      } else {
        multiply_two_by_two<false>(work, input, weights, sums);
      }
    }
  }
}

template <int blocks>
TROUPE_AMX void multiply_row(const panel& work, const std::byte* input, float* sums) {
  const auto stride = static_cast<int>(work.sums_stride * 4);
  if (work.resume) {
    _tile_loadd(0, sums, stride);
    if constexpr (blocks > 1) _tile_loadd(1, sums + 1 * tile_outputs, stride);
    if constexpr (blocks > 2) _tile_loadd(2, sums + 2 * tile_outputs, stride);
    if constexpr (blocks > 3) _tile_loadd(3, sums + 3 * tile_outputs, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::byte* weights = work.weights;
  const std::int64_t next = work.block_bytes;
  for (std::int64_t step = 0; step < work.steps; ++step) {
    _tile_loadd(4, input, work.input_row_bytes);
    _tile_loadd(6, weights, weight_row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (blocks > 1) {
      _tile_loadd(7, weights + next, weight_row_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (blocks > 2) {
      _tile_loadd(6, weights + 2 * next, weight_row_bytes);
      _tile_dpbf16ps(2, 4, 6);
    }
    if constexpr (blocks > 3) {
      _tile_loadd(7, weights + 3 * next, weight_row_bytes);
      _tile_dpbf16ps(3, 4, 7);
    }
    input += work.input_step_bytes;
    weights += weight_step_bytes;
  }
  _tile_stored(0, sums, stride);
  if constexpr (blocks > 1) _tile_stored(1, sums + 1 * tile_outputs, stride);
  if constexpr (blocks > 2) _tile_stored(2, sums + 2 * tile_outputs, stride);
  if constexpr (blocks > 3) _tile_stored(3, sums + 3 * tile_outputs, stride);
}

TROUPE_AMX void multiply_panel(const panel& work) {
  // The tile loads below do not tell the compiler what they read.
  __asm__ volatile("" : : : "memory");
  multiply_pairs_of_tiles(work);
  const std::int64_t rest = work.rows % (2 * tile_rows);
  if (rest > 0 && rest <= tile_rows) {
    const std::int64_t row = work.rows - rest;
    configure(rest, rest);
    const std::byte* input = work.input + row / tile_rows * work.input_tile_bytes;
    float* sums = work.sums + row * work.sums_stride;
    switch (work.blocks) {
      case 1:
        multiply_row<1>(work, input, sums);
        break;
      case 2:
        multiply_row<2>(work, input, sums);
        break;
      case 3:
        multiply_row<3>(work, input, sums);
        break;
      default:
        multiply_row<4>(work, input, sums);
        break;
    }
  }
  _tile_release();  // nothing to save when the system switches threads
}

}  // namespace

panel_function amx_panel() { return multiply_panel; }

}  // namespace troupe::kernels::matmul_detail

#else

namespace troupe::kernels::matmul_detail {
panel_function amx_panel() { return nullptr; }
}  // namespace troupe::kernels::matmul_detail

#endif
