// The numerics profile: what a model's bits belong to.
//
// AMX, AVX512-BF16 and fused multiply-add chains differ from each other in most dot products, so
// equal bits are promised within one profile: instruction path, dtypes and the version of the
// kernels' arithmetic. Everything else (batch, chunk, threads, ranks) leaves the bits alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.hpp"

namespace troupe::kernels {

// Of each device fastest first. avx512 and avx2 widen bfloat16 to float32 before multiplying.
// Tensor cores of different generations add differently, so each is a path of its own.
enum class instruction_path : std::uint8_t {
  amx_bf16,
  avx512_bf16,
  avx512,
  avx2,
  cuda_sm80,   // and 86, 89
  cuda_sm90,   // Hopper
  cuda_sm100,  // Blackwell
};

[[nodiscard]] constexpr bool on_cuda(instruction_path path) noexcept {
  return path == instruction_path::cuda_sm80 || path == instruction_path::cuda_sm90 ||
         path == instruction_path::cuda_sm100;
}

[[nodiscard]] std::string_view to_string(instruction_path path) noexcept;
[[nodiscard]] std::optional<instruction_path> parse_instruction_path(
    std::string_view text) noexcept;

// Paths that this CPU and kernel can run for `type`, fastest first; empty on a CPU without AVX2.
// float32 has no path of its own on AMX or AVX512-BF16. Asks the kernel for AMX tiles where needed.
[[nodiscard]] std::vector<instruction_path> supported_paths(dtype type);

// Whether this CPU has what the products of integers take beside their path's instructions.
[[nodiscard]] bool has_amx_int8() noexcept;
[[nodiscard]] bool has_avx512_vnni() noexcept;
[[nodiscard]] bool has_avx_vnni() noexcept;

// Counts up whenever any kernel's arithmetic changes its bits.
inline constexpr int kernel_numerics_version = 3;

struct numerics_profile {
  instruction_path path = instruction_path::avx2;
  dtype weights = dtype::float32;
  dtype kv_cache = dtype::float32;
  int version = kernel_numerics_version;
  // How weights are quantised where they are multiplied; dequantised while loading is none.
  // float8_blocks: those that may.
  quantisation kept = quantisation::none;
  friend bool operator==(const numerics_profile&, const numerics_profile&) = default;
};

// What the weights are multiplied as: a dtype's name, "float8_blocks", "int8" or "int4".
[[nodiscard]] std::string_view weights_name(const numerics_profile& profile) noexcept;

// E.g. "amx_bf16/bfloat16/kv-bfloat16/v1"; quantised "cuda_sm90/float8_blocks/...",
// "avx2/int8/...".
[[nodiscard]] std::string to_string(const numerics_profile& profile);

}  // namespace troupe::kernels
