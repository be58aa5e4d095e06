// Copies chosen rows: e.g. the last token of each sequence before the output projection.
#pragma once

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Shape: args.input float32 [rows][columns], args.output float32 [args.rows.size()][columns], both
// with strided rows that do not overlap. A row may be chosen more than once. The bytes are copied,
// on every path alike.
// Cost: one read and one write of the output.
void gather_rows(instruction_path path, thread_pool& pool, const gather_rows_args& args);

// Plain loops.
void gather_rows_reference(const gather_rows_args& args);

}  // namespace troupe::kernels
