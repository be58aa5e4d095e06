#include "kernels/gather_rows/gather_rows.hpp"

namespace troupe::kernels {

void gather_rows_reference(const gather_rows_args& args) {
  for (std::size_t i = 0; i < args.rows.size(); ++i) {
    const float* const from = args.input.row<float>(args.rows[i]);
    float* const to = args.output.row<float>(static_cast<std::int64_t>(i));
    for (std::int64_t column = 0; column < args.output.columns(); ++column) {
      to[column] = from[column];
    }
  }
}

}  // namespace troupe::kernels
