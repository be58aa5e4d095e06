// What of a stored matrix a rank loads, and how the canonical grid cuts it.
#pragma once

#include <cstdint>
#include <string>

#include "models/grid.hpp"

namespace troupe::models {

// A rectangle of one stored matrix. Its whole shape is given too, to be checked against the file's.
struct matrix_part {
  std::string name = {};
  range outputs = {};  // rows
  range inputs = {};   // columns; the same width for all parts of one matrix
  std::int64_t all_outputs = 0;
  std::int64_t all_inputs = 0;
};

// Where a matrix may be cut, the same for every tensor-parallel size: what decides whether it may
// stay quantised, so that this does not depend on the rank.
struct matrix_cuts {
  std::int64_t output_unit = 0;  // parts begin and end at multiples of it; 0: whole rows
  grid inputs = {};              // runs of columns; empty: one run
};

}  // namespace troupe::models
