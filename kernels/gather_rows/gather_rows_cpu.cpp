#include <cstring>

#include "kernels/gather_rows/gather_rows.hpp"
#include "kernels/row_tasks.hpp"

namespace troupe::kernels {

void gather_rows(instruction_path /*path*/, thread_pool& pool, const gather_rows_args& args) {
  const std::int64_t columns = args.input.columns();
  TROUPE_CHECK(args.input.type == dtype::float32 && args.output.type == dtype::float32);
  TROUPE_CHECK(args.output.columns() == columns);
  TROUPE_CHECK(args.output.rows() == static_cast<std::int64_t>(args.rows.size()));
  for (const std::int32_t row : args.rows) TROUPE_CHECK(row >= 0 && row < args.input.rows());
  if (columns == 0) return;
  for_row_ranges(pool, args.output.rows(), columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::memcpy(args.output.row<float>(i),
                  args.input.row<float>(args.rows[static_cast<std::size_t>(i)]),
                  static_cast<std::size_t>(columns) * sizeof(float));
    }
  });
}

}  // namespace troupe::kernels
