#include "kernels/packed_tensor_lines.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include "kernels/float16.hpp"

namespace troupe::kernels::packing {
namespace {

// Four words: one SSE2 or NEON register, which every build of this file may use.
using words = std::uint32_t __attribute__((vector_size(16)));

constexpr std::int64_t line_words = 16;
constexpr std::int64_t line_bytes = 64;
// Far enough ahead of 16 streams for the memory's latency; the hardware follows within a page only.
constexpr std::int64_t prefetch_bytes = 512;

struct float16_bits {
  std::uint16_t bits;
};
struct bfloat16_bits {
  std::uint16_t bits;
};

float to_float(float value) { return value; }
float to_float(bfloat16_bits value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}
float to_float(float16_bits value) { return from_float16(value.bits); }

// To nearest, ties to even; a NaN stays one, with its sign and upper payload.
std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40U;
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return static_cast<std::uint16_t>(is_nan ? quiet : rounded);
}

template <class Target, class Source>
Target convert(Source value) {
  if constexpr (std::is_same_v<Target, Source>) {
    return value;
  } else if constexpr (std::is_same_v<Target, float>) {
    return to_float(value);
  } else {
    return {to_bfloat16(to_float(value))};
  }
}

// Elements [0, count) of a line, converted, zeros behind. The source may be unaligned.
template <class Target, class Source>
void make_line(const std::byte* from, std::int64_t count, std::byte* line) {
  constexpr std::size_t elements = line_bytes / sizeof(Target);
  std::array<Source, elements> source{};
  std::array<Target, elements> target;
  if (count == static_cast<std::int64_t>(elements)) {
    std::memcpy(source.data(), from, sizeof(source));
  } else {
    std::memcpy(source.data(), from, static_cast<std::size_t>(count) * sizeof(Source));
  }
  for (std::size_t i = 0; i < elements; ++i) target[i] = convert<Target>(source[i]);
  std::memcpy(line, target.data(), sizeof(target));
}

words load(const std::byte* from) {
  words value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// Columns [4 * column, +4) of the tile's 16 lines, from 4 lines of input.
void transpose_four_lines(const std::array<const std::byte*, 4>& lines, std::int64_t column,
                          std::byte* tile) {
  for (std::int64_t quad = 0; quad < line_words / 4; ++quad) {
    const words a = load(lines[0] + quad * 16);
    const words b = load(lines[1] + quad * 16);
    const words c = load(lines[2] + quad * 16);
    const words d = load(lines[3] + quad * 16);
    const words ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const words ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const words cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const words cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const std::array out{__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                         __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
    std::byte* const to = tile + quad * 4 * line_bytes + column * 16;
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::memcpy(to + static_cast<std::int64_t>(i) * line_bytes, &out[i], sizeof(words));
    }
  }
}

template <class Target, class Source>
std::byte* pack_run_as(const run_rows& run, std::byte* to) {
  constexpr std::int64_t line_inputs = line_bytes / static_cast<std::int64_t>(sizeof(Target));
  constexpr std::int64_t source_bytes = sizeof(Source);
  alignas(line_bytes) std::array<std::byte, tile_outputs * line_bytes> staged{};
  for (std::int64_t input = 0; input < run.inputs; input += line_inputs) {
    const std::int64_t count = std::min(line_inputs, run.inputs - input);
    const bool direct = std::is_same_v<Target, Source> && count == line_inputs;
    const auto line = [&](std::int64_t row) -> const std::byte* {
      const std::byte* from = run.rows + row * run.row_bytes + input * source_bytes;
      __builtin_prefetch(from + prefetch_bytes);
      if (direct) return from;
      std::byte* made = staged.data() + row * line_bytes;
      make_line<Target, Source>(from, count, made);
      return made;
    };
    const std::int64_t filled = std::is_same_v<Target, float> ? count : line_words;
    if (run.outputs == tile_outputs && filled == line_words) {
      for (std::int64_t row = 0; row < tile_outputs; row += 4) {
        transpose_four_lines({line(row), line(row + 1), line(row + 2), line(row + 3)}, row / 4, to);
      }
    } else {
      for (std::int64_t row = 0; row < run.outputs; ++row) {
        const std::byte* from = line(row);
        std::byte* word = to + (run.first_output + row) * 4;
        for (std::int64_t i = 0; i < filled; ++i) {
          std::memcpy(word + i * line_bytes, from + i * 4, 4);
        }
      }
    }
    to += filled * line_bytes;
  }
  return to;
}

template <class Target, class Source>
void copy_elements_as(const std::byte* from, std::int64_t count, std::byte* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    Source value;
    std::memcpy(&value, from + i * static_cast<std::int64_t>(sizeof(Source)), sizeof(Source));
    const auto converted = convert<Target>(value);
    std::memcpy(to + i * static_cast<std::int64_t>(sizeof(Target)), &converted, sizeof(Target));
  }
}

template <class Target>
void copy_elements_to(const element_run& run, std::byte* to) {
  switch (run.source) {
    case source_dtype::float32:
      return copy_elements_as<Target, float>(run.from, run.count, to);
    case source_dtype::float16:
      return copy_elements_as<Target, float16_bits>(run.from, run.count, to);
    case source_dtype::bfloat16:
      return copy_elements_as<Target, bfloat16_bits>(run.from, run.count, to);
    case source_dtype::float8_e4m3:
      break;
  }
  TROUPE_CHECK(!"float8_e4m3 is copied, never converted");
}

template <class Target>
std::byte* pack_run_to(const run_rows& run, std::byte* to) {
  switch (run.source) {
    case source_dtype::float32:
      return pack_run_as<Target, float>(run, to);
    case source_dtype::float16:
      return pack_run_as<Target, float16_bits>(run, to);
    case source_dtype::bfloat16:
      return pack_run_as<Target, bfloat16_bits>(run, to);
    case source_dtype::float8_e4m3:
      break;
  }
  TROUPE_CHECK(!"a source dtype outside the enum");
}

}  // namespace

std::byte* pack_run(const run_rows& run, std::byte* to) {
  return run.type == dtype::float32 ? pack_run_to<float>(run, to)
                                    : pack_run_to<bfloat16_bits>(run, to);
}

void copy_elements(const element_run& run, std::byte* to) {
  if (run.source == source_dtype::float8_e4m3) {
    std::memcpy(to, run.from, static_cast<std::size_t>(run.count));
  } else if (run.source == source_dtype::bfloat16 && run.type == dtype::bfloat16) {
    std::memcpy(to, run.from, static_cast<std::size_t>(run.count) * 2);
  } else if (run.type == dtype::float32) {
    copy_elements_to<float>(run, to);
  } else {
    copy_elements_to<bfloat16_bits>(run, to);
  }
}

}  // namespace troupe::kernels::packing
