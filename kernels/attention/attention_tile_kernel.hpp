// The attention kernels of one instruction set that multiplies tiles. Included by their sources
// only.
#pragma once

#include "kernels/attention/attention_tile_narrow.hpp"
#include "kernels/attention/attention_tile_wide.hpp"

#if TROUPE_TILES_POSSIBLE

namespace troupe::kernels::attention_detail::tiles {

// `Products`: begin and end as of block_kernel, score and add_values of many columns, score_few and
// add_values_few of up to 16. All of them give a query the same bits.
template <class Products>
[[nodiscard]] const block_kernel* kernel_for(std::int64_t columns) {
  static constexpr block_kernel wide{output_floats,       work_bytes, Products::begin,
                                     wide_step<Products>, wide_fold,  wide_write,
                                     Products::end};
  static constexpr block_kernel narrow{output_floats,         work_bytes,  Products::begin,
                                       narrow_step<Products>, narrow_fold, narrow_write,
                                       Products::end};
  return columns <= tile_rows ? &narrow : &wide;
}

}  // namespace troupe::kernels::attention_detail::tiles

#endif
