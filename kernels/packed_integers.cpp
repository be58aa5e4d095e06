#include "kernels/packed_integers.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/float16.hpp"
#include "kernels/packed_tensor.hpp"

namespace troupe::kernels::packing {
namespace {

// One lane an output: a quarter of a block, which is a register of every build of this file.
constexpr std::int64_t lane_count = 4;
using lanes = float __attribute__((vector_size(16)));
using words = std::uint32_t __attribute__((vector_size(16)));
using mask = std::int32_t __attribute__((vector_size(16)));

constexpr std::uint32_t magnitude_bits = 0x7FFFFFFFU;
constexpr std::uint32_t infinity_bits = 0x7F800000U;
// Below it a scale's inverse would overflow: such weights are 0.
constexpr float least_magnitude = 0x1p-100F;
// Adding it to a number below 2^22 leaves the nearest whole one, ties to even, in the low bits.
constexpr float rounder = 0x1.8p23F;

lanes every(float value) { return lanes{} + value; }

lanes load(const float* tile, std::int64_t input) {
  lanes value;
  std::memcpy(&value, tile + input * tile_outputs, sizeof(value));
  return value;
}

words bits_of(lanes value) { return reinterpret_cast<words>(value); }
lanes float_of(words bits) { return reinterpret_cast<lanes>(bits); }

words largest_magnitude(const float* tile, std::int64_t inputs) {
  words largest{};
  for (std::int64_t i = 0; i < inputs; ++i) {
    const words magnitude = bits_of(load(tile, i)) & magnitude_bits;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// All ones where a lane's weights are numbers.
words finite(words largest) { return reinterpret_cast<words>(largest < words{} + infinity_bits); }

float* lane(lanes& of) { return reinterpret_cast<float*>(&of); }

lanes nan_unless(words ok, lanes value) {
  const words nan = bits_of(every(std::numeric_limits<float>::quiet_NaN()));
  return float_of((bits_of(value) & ok) | (nan & ~ok));
}

// The four steps between codes that are tried beside the natural one, as its shares of 8.
constexpr std::array divisors{8.0F, 7.0F, 7.5F, 8.5F, 9.0F};

lanes clamped(lanes value) {
  value = value < -8.0F ? every(-8.0F) : value;
  return value > 7.0F ? every(7.0F) : value;
}

// What a group's weights are multiplied with to become codes, and codes to become weights.
struct int4_choice {
  lanes inverse{};
  lanes step{};
};

// Of all divisors that with the largest (sum w q)^2 / sum q^2, which is what least squares take off
// the error; w in shares of the largest, so that nothing leaves float32's range.
int4_choice choose_step(const std::array<lanes, int4_group_inputs>& weights) {
  lanes extreme{};
  words largest{};
  for (const lanes value : weights) {
    const words magnitude = bits_of(value) & magnitude_bits;
    extreme = magnitude > largest ? value : extreme;
    largest = magnitude > largest ? magnitude : largest;
  }
  const auto usable = reinterpret_cast<words>(float_of(largest) > every(least_magnitude));
  const lanes divide_by = float_of((bits_of(extreme) & usable) | (bits_of(every(1.0F)) & ~usable));
  const lanes reciprocal = every(1.0F) / divide_by;
  int4_choice best;
  lanes best_score{};
  for (const float divisor : divisors) {
    const lanes inverse = reciprocal * -divisor;
    lanes product{};
    lanes square{};
    for (const lanes value : weights) {
      const lanes code = (clamped(value * inverse) + rounder) - rounder;
      product += value * reciprocal * code;
      square += code * code;
    }
    square = square > 0.0F ? square : every(1.0F);
    const lanes step = product / square;
    const lanes score = product * step;
    const mask better = score > best_score;
    best.inverse = better ? inverse : best.inverse;
    best.step = better ? step * divide_by : best.step;
    best_score = better ? score : best_score;
  }
  return {.inverse = float_of(bits_of(best.inverse) & usable),
          .step = float_of(bits_of(best.step) & usable)};
}

// A power of two by which the run's scales are divided, so that the largest is below 2^15.
float factor_of(float largest_step) {
  constexpr int exponent_wanted = 15;
  constexpr int exponent_min = -100;
  if (largest_step == 0.0F) return 1.0F;
  int exponent = 0;
  (void)std::frexp(largest_step, &exponent);
  return std::ldexp(1.0F, std::max(exponent, exponent_min) - exponent_wanted);
}

// `to`: the lanes' scales of the first step's first group.
void write_int4_scales(const std::vector<lanes>& group_steps, std::byte* to, lanes& factors) {
  lanes largest{};
  for (const lanes step : group_steps) {
    const lanes magnitude = float_of(bits_of(step) & magnitude_bits);
    largest = magnitude > largest ? magnitude : largest;
  }
  for (std::int64_t o = 0; o < lane_count; ++o) lane(factors)[o] = factor_of(lane(largest)[o]);
  for (std::size_t group = 0; group < group_steps.size(); ++group) {
    lanes scaled = group_steps[group] / factors;
    std::array<std::uint16_t, lane_count> halves;
    for (std::size_t o = 0; o < halves.size(); ++o) halves[o] = to_float16(lane(scaled)[o]);
    const auto at = static_cast<std::int64_t>(group);
    std::memcpy(to + at / 2 * int4_step_bytes + at % 2 * tile_outputs * 2, halves.data(),
                sizeof(halves));
  }
}

void quantise_int8_lanes(const float* tile, std::int64_t inputs, std::byte* steps, float* scales) {
  const words largest = largest_magnitude(tile, inputs);
  const words ok = finite(largest);
  const lanes most = float_of(largest & ok);
  const auto usable = reinterpret_cast<words>(most > every(least_magnitude));
  const lanes divide_by = float_of((bits_of(most) & usable) | (bits_of(every(1.0F)) & ~usable));
  const lanes inverse = float_of(bits_of(every(127.0F) / divide_by) & usable);
  const lanes scale = nan_unless(ok, float_of(bits_of(most / 127.0F) & usable));
  std::memcpy(scales, &scale, sizeof(scale));
  const std::int64_t padded = integer_steps(inputs) * integer_step_inputs;
  for (std::int64_t quad = 0; quad < padded; quad += 4) {
    words line{};
    for (std::int64_t i = 0; i < 4; ++i) {
      lanes value{};
      if (quad + i < inputs) value = float_of(bits_of(load(tile, quad + i)) & ok);
      const words code = (bits_of(value * inverse + rounder) ^ 0x80U) & 0xFFU;
      line |= code << static_cast<std::uint32_t>(8 * i);
    }
    std::memcpy(steps + quad / 4 * integer_line_bytes, &line, sizeof(line));
  }
}

void quantise_int4_lanes(const float* tile, std::int64_t inputs, std::byte* steps,
                         std::byte* scales, float* factors) {
  const words ok = finite(largest_magnitude(tile, inputs));
  const std::int64_t groups = integer_steps(inputs) * (integer_step_inputs / int4_group_inputs);
  std::vector<lanes> group_steps(static_cast<std::size_t>(groups));  // scales before the factor
  for (std::int64_t group = 0; group < groups; ++group) {
    std::array<lanes, int4_group_inputs> weights{};
    const std::int64_t first = group * int4_group_inputs;
    for (std::int64_t i = 0; i < std::min(int4_group_inputs, inputs - first); ++i) {
      weights[static_cast<std::size_t>(i)] = float_of(bits_of(load(tile, first + i)) & ok);
    }
    const int4_choice choice = choose_step(weights);
    group_steps[static_cast<std::size_t>(group)] = choice.step;
    std::byte* const to = steps + group / 2 * int4_step_bytes;
    for (std::int64_t quad = 0; quad < int4_group_inputs / 4; ++quad) {
      words line{};
      if (group % 2 == 1) std::memcpy(&line, to + quad * integer_line_bytes, sizeof(line));
      for (std::int64_t i = 0; i < 4; ++i) {
        const lanes value = weights[static_cast<std::size_t>(quad * 4 + i)];
        const words code = (bits_of(clamped(value * choice.inverse) + rounder) + 8U) & 0xFU;
        line |= code << static_cast<std::uint32_t>(8 * i + group % 2 * 4);
      }
      std::memcpy(to + quad * integer_line_bytes, &line, sizeof(line));
    }
  }
  lanes powers{};
  write_int4_scales(group_steps, scales, powers);
  powers = nan_unless(ok, powers);
  std::memcpy(factors, &powers, sizeof(powers));
}

std::uint8_t code_byte(const std::byte* lines, std::int64_t input, std::int64_t output) {
  return static_cast<std::uint8_t>(lines[input / 4 * integer_line_bytes + output * 4 + input % 4]);
}

}  // namespace

void quantise_int8(const float* tile, std::int64_t inputs, std::byte* steps, float* scales) {
  for (std::int64_t o = 0; o < tile_outputs; o += lane_count) {
    quantise_int8_lanes(tile + o, inputs, steps + o * 4, scales + o);
  }
}

void quantise_int4(const float* tile, std::int64_t inputs, std::byte* steps, float* factors) {
  for (std::int64_t o = 0; o < tile_outputs; o += lane_count) {
    quantise_int4_lanes(tile + o, inputs, steps + int4_codes_offset + o * 4, steps + o * 2,
                        factors + o);
  }
}

int int8_code(const std::byte* steps, std::int64_t input, std::int64_t output) {
  return code_byte(steps, input, output) - 128;
}

int int4_code(const std::byte* steps, std::int64_t input, std::int64_t output) {
  const std::byte* step = steps + input / integer_step_inputs * int4_step_bytes;
  const std::int64_t half = input % integer_step_inputs / int4_group_inputs;
  const int both = code_byte(step + int4_codes_offset, input % int4_group_inputs, output);
  return (half == 0 ? both & 0xF : both >> 4) - 8;
}

float int4_scale(const std::byte* steps, std::int64_t input, std::int64_t output) {
  const std::byte* step = steps + input / integer_step_inputs * int4_step_bytes;
  const std::int64_t half = input % integer_step_inputs / int4_group_inputs;
  std::uint16_t bits = 0;
  std::memcpy(&bits, step + (half * tile_outputs + output) * 2, sizeof(bits));
  return from_float16(bits);
}

}  // namespace troupe::kernels::packing
