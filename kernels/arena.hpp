// Scratch memory of one step: a bump allocator with scopes, so that blocks of a forward pass reuse
// the same bytes. Never frees to the system, never grows: the size is planned when the model is
// loaded.
//
//   kernels::arena::scope scope(arena);
//   tensor_view hidden = arena.take(dtype::float32, tokens, hidden_size);
#pragma once

#include <cstddef>

#include "kernels/buffer.hpp"
#include "kernels/tensor.hpp"

namespace troupe::kernels {

class arena {
 public:
  // Every view starts at a multiple of this: a cache line, and a row of an AMX tile.
  static constexpr std::size_t alignment_bytes = 64;

  arena() = default;
  explicit arena(buffer memory) : memory_(std::move(memory)) {}

  // Units: bytes that take() uses for such a view.
  [[nodiscard]] static constexpr std::size_t bytes_of(dtype type, std::int64_t rows,
                                                      std::int64_t columns) noexcept {
    const std::size_t bytes = static_cast<std::size_t>(rows * columns) * size_of(type);
    return (bytes + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
  }

  // A dense, uninitialised [rows][columns] view. Lifetime: until the scope around the call ends.
  [[nodiscard]] tensor_view take(dtype type, std::int64_t rows, std::int64_t columns) {
    const std::size_t bytes = bytes_of(type, rows, columns);
    TROUPE_CHECK(used_ + bytes <= memory_.size());
    std::byte* const address = memory_.data() + used_;
    used_ += bytes;
    return {{memory_.device(), address}, type, {rows, columns, 1}, columns};
  }

  class scope {
   public:
    explicit scope(arena& of) : of_(of), used_(of.used_) {}
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;
    ~scope() { of_.used_ = used_; }

   private:
    arena& of_;
    std::size_t used_;
  };

 private:
  buffer memory_;
  std::size_t used_ = 0;
};

}  // namespace troupe::kernels
