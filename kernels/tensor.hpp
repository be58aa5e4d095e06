// Tensor views: what an op sees of memory. A view borrows; buffers (kernels/buffer.hpp) own.
//
// Row-major with up to three dimensions. Only the first may be strided (row_stride), so that a
// column slice of a fused product is a view too. `data` belongs to a device: the host may follow it
// only when data.device is cpu.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/check.hpp"

namespace troupe::kernels {

enum class dtype : std::uint8_t { float32, bfloat16 };
[[nodiscard]] constexpr std::size_t size_of(dtype type) noexcept {
  return type == dtype::float32 ? 4 : 2;
}
[[nodiscard]] constexpr std::string_view to_string(dtype type) noexcept {
  return type == dtype::float32 ? "float32" : "bfloat16";
}

// How weights are kept beside a dtype.
enum class quantisation : std::uint8_t {
  none,
  float8_blocks,  // float8_e4m3 with a scale for each 128 outputs by 128 inputs
                  // (kernels/float8.hpp)
  int8_runs,      // with a scale for each output and canonical run (kernels/packed_integers.hpp)
  int4_groups     // with a scale for each output and 32 inputs of a run (the same)
};
[[nodiscard]] constexpr bool is_integer(quantisation kind) noexcept {
  return kind == quantisation::int8_runs || kind == quantisation::int4_groups;
}

enum class device_kind : std::uint8_t { cpu, cuda };

struct device_handle {
  device_kind device = device_kind::cpu;
  std::byte* address = nullptr;
};

struct tensor_view {
  device_handle data;
  dtype type = dtype::float32;
  std::array<std::int64_t, 3> shape{0, 1, 1};  // unused trailing dimensions are 1
  std::int64_t row_stride = 0;                 // elements from one row to the next

  [[nodiscard]] std::int64_t rows() const noexcept { return shape[0]; }
  [[nodiscard]] std::int64_t columns() const noexcept { return shape[1] * shape[2]; }

  // Lifetime: of the memory behind. The host may follow it only on the CPU's device.
  template <class T>
  [[nodiscard]] T* row(std::int64_t index) const noexcept {
    TROUPE_CHECK(sizeof(T) == size_of(type));
    return reinterpret_cast<T*>(data.address) + index * row_stride;
  }
};

// A dense [rows][columns] view of host memory.
[[nodiscard]] inline tensor_view matrix_view(float* address, std::int64_t rows,
                                             std::int64_t columns) noexcept {
  return {{device_kind::cpu, reinterpret_cast<std::byte*>(address)},
          dtype::float32,
          {rows, columns, 1},
          columns};
}

// Rows [begin, begin + count) of a view.
[[nodiscard]] inline tensor_view row_slice(tensor_view view, std::int64_t begin,
                                           std::int64_t count) noexcept {
  TROUPE_CHECK(begin >= 0 && count >= 0 && begin + count <= view.shape[0]);
  view.data.address += begin * view.row_stride * static_cast<std::int64_t>(size_of(view.type));
  view.shape[0] = count;
  return view;
}

// Columns [begin, begin + count) of a two-dimensional view.
[[nodiscard]] inline tensor_view column_slice(tensor_view view, std::int64_t begin,
                                              std::int64_t count) noexcept {
  TROUPE_CHECK(begin >= 0 && count >= 0 && begin + count <= view.columns());
  view.data.address += begin * static_cast<std::int64_t>(size_of(view.type));
  view.shape = {view.shape[0], count, 1};
  return view;
}

// [rows][heads * head_dim] seen as [rows][heads][head_dim].
[[nodiscard]] inline tensor_view as_heads(tensor_view view, std::int64_t head_dim) noexcept {
  TROUPE_CHECK(head_dim > 0 && view.columns() % head_dim == 0);
  view.shape = {view.shape[0], view.columns() / head_dim, head_dim};
  return view;
}

}  // namespace troupe::kernels
