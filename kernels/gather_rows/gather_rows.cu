#include "kernels/gather_rows/gather_rows.cuh"

#include "kernels/embed/embed.cuh"

namespace troupe::kernels::cuda {

// A table of float32 is no other than a matrix of activations.
cudaError_t gather_rows(cudaStream_t stream, const gather_rows_launch& what) {
  return embed(stream, {.table = what.input,
                        .table_is_bfloat16 = false,
                        .table_stride = what.input_stride,
                        .ids = what.indices,
                        .rows = what.rows,
                        .columns = what.columns,
                        .output = what.output,
                        .output_stride = what.output_stride});
}

}  // namespace troupe::kernels::cuda
