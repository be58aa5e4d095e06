// The scales of a matrix that is stored as float8_e4m3 in blocks (kernels/float8.hpp):
// X.weight_scale_inv beside X.weight, one for each 128 rows by 128 columns of the whole matrix.
//
//   TROUPE_TRY_VOID(float8_scales::check(files, part));
//   TROUPE_TRY(scales, float8_scales::read(files, part));
//   scales.dequantise({.codes = codes, .first_row = 40, .columns = {0, 512}}, values);
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "models/checkpoint.hpp"
#include "models/matrix_part.hpp"

namespace troupe::models {

inline constexpr std::string_view float8_scale_suffix = "_scale_inv";

// 448 times it is still finite in bfloat16.
inline constexpr float float8_scale_max = 0x1p118F;

// The rectangle of the scales' tensor that a part needs; empty where the part is.
[[nodiscard]] matrix_part scales_of(const matrix_part& part);

class float8_scales {
 public:
  // Whether they are there as they must be, without reading them. Errors: not_found,
  // invalid_argument (shape or dtype: tensor, found, expected).
  [[nodiscard]] static base::result<void> check(const checkpoint& files, const matrix_part& part);
  // Errors: as check(); data_loss (one that is not a number from 0 to float8_scale_max).
  [[nodiscard]] static base::result<float8_scales> read(const checkpoint& files,
                                                        const matrix_part& part);

  // Of an element of the whole matrix.
  [[nodiscard]] float at(std::int64_t row, std::int64_t column) const noexcept;

  // Rows of the whole matrix, some columns of each.
  struct slice {
    std::span<const std::byte> codes;  // [rows][columns.size()]
    std::int64_t first_row = 0;
    range columns;
  };
  // float(code) * scale, rounded to float32. Shape: values.size() == codes.size().
  void dequantise(const slice& of, std::span<float> values) const;

 private:
  std::vector<float> values_;
  std::int64_t row_length_ = 0;
};

}  // namespace troupe::models
