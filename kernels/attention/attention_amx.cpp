// The products of attention's tiles on AMX.
#include "kernels/attention/attention_tile_kernel.hpp"

namespace troupe::kernels::attention_detail {

#if TROUPE_TILES_POSSIBLE
namespace tiles {
namespace {

// Tiles of rows of 64 bytes, 16 of them; tiles 2, 3 and 7 have `few_rows`. The configuration is
// volatile since the compiler takes ldtilecfg to read only its first bytes and may drop the stores
// of others.
TROUPE_TILES_TARGET inline void configure_tiles(std::int64_t few_rows) {
  alignas(64) volatile std::uint8_t configuration[64] = {};
  configuration[0] = 1;
  for (int tile = 0; tile < 8; ++tile) {
    const bool few = tile == 2 || tile == 3 || tile == 7;
    configuration[16 + 2 * tile] = static_cast<std::uint8_t>(tile_row_bytes);
    configuration[48 + tile] = static_cast<std::uint8_t>(few ? few_rows : tile_rows);
  }
  _tile_loadconfig(const_cast<const std::uint8_t*>(configuration));
}

// The tile loads do not tell the compiler what they read: stores before must not sink below them.
inline void finish_stores() { __asm__ volatile("" : : : "memory"); }

struct amx_products {
  TROUPE_TILES_TARGET static void begin(const column_block& block, std::byte* work) {
    configure_tiles(std::min(block.item.columns, tile_rows));
    pack_queries(block, work_view(work, block.args.cache.head_dim));
  }
  TROUPE_TILES_TARGET static void end() { _tile_release(); }

  // S^T of up to 32 tokens x 32 columns. Tiles 0 to 3 sum, 4 and 5 are K, 6 and 7 are Q^T.
  TROUPE_TILES_TARGET static void score(group_view& group, const column_tiles& columns,
                                        std::int64_t token) {
    finish_stores();
    const work_view& work = group.work;
    const bool two_tokens = token + 1 < columns.token_end;
    const bool two_columns = columns.tiles == 2;
    const std::byte* queries =
        work.queries + columns.first / tile_rows * work.depth_steps * tile_bytes;
    const std::byte* queries_beside = queries + work.depth_steps * tile_bytes;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (std::int64_t step = 0; step < work.depth_steps; ++step) {
      const key_tile keys = key_tile_of(group, token, step);
      _tile_loadd(4, keys.address, keys.stride);
      group.ahead.lines(8);
      _tile_loadd(6, queries + step * tile_bytes, tile_row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if (two_columns) {
        _tile_loadd(7, queries_beside + step * tile_bytes, tile_row_bytes);
        _tile_dpbf16ps(1, 4, 7);
      }
      if (!two_tokens) continue;
      const key_tile next = key_tile_of(group, token + 1, step);
      _tile_loadd(5, next.address, next.stride);
      _tile_dpbf16ps(2, 5, 6);
      if (two_columns) _tile_dpbf16ps(3, 5, 7);
    }
    std::byte* to = work.scores + token * tile_bytes;
    std::byte* beside = to + token_tiles * tile_bytes;
    _tile_stored(0, to, tile_row_bytes);
    if (two_columns) _tile_stored(1, beside, tile_row_bytes);
    if (!two_tokens) return;
    _tile_stored(2, to + tile_bytes, tile_row_bytes);
    if (two_columns) _tile_stored(3, beside + tile_bytes, tile_row_bytes);
  }

  // O^T += V^T P^T for up to two tiles of dimensions and two of columns. Tiles 0 to 3 are O^T, 4
  // and 5 V^T, 6 and 7 P^T.
  TROUPE_TILES_TARGET static void add_values(group_view& group, const column_tiles& columns,
                                             std::int64_t tile, float* output) {
    finish_stores();
    const work_view& work = group.work;
    const bool two_dims = tile + 1 < work.output_tiles;
    const bool two_columns = columns.tiles == 2;
    float* to = output + tile * tile_floats;
    float* beside = to + work.output_tiles * tile_floats;
    _tile_loadd(0, to, tile_row_bytes);
    if (two_dims) _tile_loadd(1, to + tile_floats, tile_row_bytes);
    if (two_columns) _tile_loadd(2, beside, tile_row_bytes);
    if (two_dims && two_columns) _tile_loadd(3, beside + tile_floats, tile_row_bytes);
    for (std::int64_t half = columns.token_begin / 2; half < (columns.token_end + 1) / 2; ++half) {
      _tile_loadd(4, work.value_tile(half, tile), tile_row_bytes);
      _tile_loadd(6, work.probabilities + half * tile_bytes, tile_row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if (two_columns) {
        _tile_loadd(7, work.probabilities + (halves + half) * tile_bytes, tile_row_bytes);
        _tile_dpbf16ps(2, 4, 7);
      }
      if (!two_dims) continue;
      _tile_loadd(5, work.value_tile(half, tile + 1), tile_row_bytes);
      _tile_dpbf16ps(1, 5, 6);
      if (two_columns) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, tile_row_bytes);
    if (two_dims) _tile_stored(1, to + tile_floats, tile_row_bytes);
    if (two_columns) _tile_stored(2, beside, tile_row_bytes);
    if (two_dims && two_columns) _tile_stored(3, beside + tile_floats, tile_row_bytes);
  }

  // Few columns. Tiles 0 and 1 sum scores, 2 and 3 outputs; 4 and 5 are K or V, 6 is Q^T, 7 is P.
  // Tiles 2, 3 and 7 have a row a column.
  TROUPE_TILES_TARGET static void score_few(group_view& group, std::int64_t token,
                                            std::int64_t token_end) {
    finish_stores();
    const work_view& work = group.work;
    const bool two_tokens = token + 1 < token_end;
    _tile_zero(0);
    _tile_zero(1);
    for (std::int64_t step = 0; step < work.depth_steps; ++step) {
      const key_tile keys = key_tile_of(group, token, step);
      _tile_loadd(4, keys.address, keys.stride);
      group.ahead.lines(8);
      _tile_loadd(6, work.queries + step * tile_bytes, tile_row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if (!two_tokens) continue;
      const key_tile next = key_tile_of(group, token + 1, step);
      _tile_loadd(5, next.address, next.stride);
      _tile_dpbf16ps(1, 5, 6);
    }
    std::byte* to = work.scores + token * tile_bytes;
    _tile_stored(0, to, tile_row_bytes);
    if (two_tokens) _tile_stored(1, to + tile_bytes, tile_row_bytes);
  }

  TROUPE_TILES_TARGET static void add_values_few(group_view& group, const column_tiles& columns,
                                                 std::int64_t tile, float* output) {
    finish_stores();
    const work_view& work = group.work;
    group.ahead.lines(16);
    float* to = output + tile * tile_floats;
    _tile_loadd(2, to, tile_row_bytes);
    _tile_loadd(3, to + tile_floats, tile_row_bytes);
    for (std::int64_t half = columns.token_begin / 2; half < (columns.token_end + 1) / 2; ++half) {
      _tile_loadd(7, work.probabilities + (halves + half) * tile_bytes, tile_row_bytes);
      _tile_loadd(4, work.value_tile(half, tile), tile_row_bytes);
      _tile_dpbf16ps(2, 7, 4);
      _tile_loadd(5, work.value_tile(half, tile + 1), tile_row_bytes);
      _tile_dpbf16ps(3, 7, 5);
    }
    _tile_stored(2, to, tile_row_bytes);
    _tile_stored(3, to + tile_floats, tile_row_bytes);
  }
};

}  // namespace
}  // namespace tiles

const block_kernel* amx_kernel(std::int64_t columns) {
  return tiles::kernel_for<tiles::amx_products>(columns);
}

#else

const block_kernel* amx_kernel(std::int64_t /*columns*/) { return nullptr; }

#endif

}  // namespace troupe::kernels::attention_detail
