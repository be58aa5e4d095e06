// Activations as int8, and the sums of integers as float32 again. Every operation is one element's
// own, so the number of lanes leaves the bits alone.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "kernels/matmul/matmul_work.hpp"
#include "kernels/packed_integers.hpp"
#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/quantise_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::matmul_detail::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
constexpr hn::ScalableTag<float> tag;
constexpr hn::RebindToSigned<decltype(tag)> whole;
constexpr hn::RebindToUnsigned<decltype(tag)> words;
constexpr hn::Rebind<std::uint16_t, decltype(tag)> halves;
constexpr hn::Rebind<std::int8_t, decltype(tag)> bytes;
using whole_lanes = hn::Vec<decltype(whole)>;
constexpr std::int64_t width = static_cast<std::int64_t>(hn::MaxLanes(tag));
constexpr std::int64_t group_inputs = packing::int4_group_inputs;

// Bits of the largest magnitude, as float32 has them.
std::uint32_t largest_magnitude(const std::uint16_t* from, std::int64_t count) {
  constexpr std::uint32_t magnitude_bits = 0x7FFFU;
  auto largest = hn::Zero(words);
  std::int64_t i = 0;
  for (; i + width <= count; i += width) {
    const auto value = hn::PromoteTo(words, hn::LoadU(halves, from + i));
    largest = hn::Max(largest, hn::And(value, hn::Set(words, magnitude_bits)));
  }
  std::uint32_t most = hn::GetLane(hn::MaxOfLanes(words, largest));
  for (; i < count; ++i) most = std::max(most, from[i] & magnitude_bits);
  return most << 16;
}

// One group of 32 inputs. Returns the codes' sum.
std::int32_t quantise_group(const std::uint16_t* from, hn::Vec<decltype(tag)> inverse,
                            std::int8_t* codes) {
  whole_lanes sum = hn::Zero(whole);
  for (std::int64_t i = 0; i < group_inputs; i += width) {
    const auto bits = hn::ShiftLeft<16>(hn::PromoteTo(words, hn::LoadU(halves, from + i)));
    const whole_lanes code = hn::NearestInt(hn::Mul(hn::BitCast(tag, bits), inverse));
    hn::StoreU(hn::DemoteTo(bytes, code), bytes, codes + i);
    sum = hn::Add(sum, code);
  }
  return hn::GetLane(hn::SumOfLanes(whole, sum));
}

void quantise_run(const std::uint16_t* from, std::int64_t count, quantised_run& to) {
  constexpr float least_magnitude = 0x1p-100F;  // below it the inverse would overflow
  const float most = std::bit_cast<float>(largest_magnitude(from, count));
  const bool finite = most <= std::numeric_limits<float>::max();
  const bool codes = finite && most > least_magnitude;
  to.scale = codes ? most / 127.0F : finite ? 0.0F : std::numeric_limits<float>::quiet_NaN();
  to.sum = 0;
  const auto inverse = hn::Set(tag, codes ? 127.0F / most : 0.0F);
  std::uint16_t rest[group_inputs];
  const std::int64_t groups = packing::integer_steps(count) * 2;
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::int64_t left = codes ? count - group * group_inputs : 0;
    const std::uint16_t* values = from + group * group_inputs;
    if (left < group_inputs) {
      std::memset(rest, 0, sizeof(rest));
      if (left > 0) std::copy_n(values, left, rest);
      values = rest;
    }
    const std::int32_t sum = quantise_group(
        values, inverse, to.codes + group / 2 * to.step_bytes + group % 2 * group_inputs);
    to.sum += sum;
    if (to.group_offsets != nullptr) to.group_offsets[group] = -8 * sum;
  }
}

template <bool integers>
void scale_sums(const run_scaling& of) {
  for (std::int64_t row = 0; row < of.rows; ++row) {
    const float* sums = of.sums + row * of.blocks * tile_outputs;
    float* to = of.to + row * of.to_stride;
    const auto row_scale = hn::Set(tag, of.row_scales[row * of.row_stride]);
    const auto* scales = reinterpret_cast<const std::byte*>(of.weight_scales);
    for (std::int64_t block = 0; block < of.blocks; ++block, scales += of.block_bytes) {
      for (std::int64_t i = 0; i < tile_outputs; i += width, sums += width, to += width) {
        auto sum = hn::LoadU(tag, sums);
        if constexpr (integers) {
          const auto offset = hn::Set(whole, of.row_offsets[row * of.row_stride]);
          sum = hn::ConvertTo(tag, hn::Add(hn::BitCast(whole, sum), offset));
        }
        const auto scale = hn::LoadU(tag, reinterpret_cast<const float*>(scales) + i);
        hn::StoreU(hn::Mul(hn::Mul(sum, scale), row_scale), tag, to);
      }
    }
  }
}

}  // namespace

quantise_function quantiser() { return quantise_run; }

scale_function scaler(quantisation kind) {
  return kind == quantisation::int8_runs ? scale_sums<true> : scale_sums<false>;
}

}  // namespace troupe::kernels::matmul_detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels::matmul_detail {

quantise_function vector_quantise(instruction_path path) {
  return TROUPE_SIMD_CALL(path, quantiser);
}

scale_function vector_scale(instruction_path path, quantisation kind) {
  return TROUPE_SIMD_CALL(path, scaler, kind);
}

}  // namespace troupe::kernels::matmul_detail
#endif
