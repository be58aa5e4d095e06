// Rows of a packed table as float32: the embedding of tokens whose rows this rank owns.
#pragma once

#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Shape: output[i] = table row local_ids[i]; every id is within the table. Exact, so no path.
// Cost: reads a cache line for each two inputs (one for float32), since rows lie across tiles.
void embed(thread_pool& pool, const embed_args& args);

}  // namespace troupe::kernels
