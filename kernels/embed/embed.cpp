#include "kernels/embed/embed.hpp"

namespace troupe::kernels {

void embed(thread_pool& pool, const embed_args& args) {
  TROUPE_CHECK(args.table != nullptr && args.output.type == dtype::float32);
  const auto rows = static_cast<std::int64_t>(args.local_ids.size());
  const std::int64_t columns = args.table->inputs();
  TROUPE_CHECK(args.output.rows() == rows && args.output.columns() == columns);
  pool.parallel_for(rows, [&](std::int64_t row, int) {
    args.table->unpack_row(args.local_ids[static_cast<std::size_t>(row)],
                           {args.output.row<float>(row), static_cast<std::size_t>(columns)});
  });
}

}  // namespace troupe::kernels
