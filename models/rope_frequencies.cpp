#include "models/rope_frequencies.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace troupe::models {
namespace {

float narrow(double value) { return static_cast<float>(value); }

// torch.pow of float32: its vector library is within 1 ulp of this, which is correctly rounded.
float power(float base, float exponent) {
  return narrow(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
}

// 2i / head_dim, as torch.arange(0, dim, 2).float() / dim.
float exponent_at(std::size_t i, std::size_t half) {
  return narrow(static_cast<double>(2 * i)) / narrow(static_cast<double>(2 * half));
}

// _compute_llama3_parameters
void scale_llama3(const rope_parameters& rope, std::span<float> inv_freq) {
  const auto trained = static_cast<double>(rope.original_max_position_embeddings);
  const float low_wavelength = narrow(trained / rope.low_freq_factor);
  const float high_wavelength = narrow(trained / rope.high_freq_factor);
  const float factor = narrow(rope.factor);
  const float range = narrow(rope.high_freq_factor - rope.low_freq_factor);
  for (float& value : inv_freq) {
    const float wavelength = (1.0F / value) * narrow(2.0 * std::numbers::pi);
    const bool low = wavelength > low_wavelength;
    const bool high = wavelength < high_wavelength;
    if (low) {
      value = value / factor;
    } else if (!high) {
      const float turns = (1.0F / wavelength) * narrow(trained);
      const float smooth = (turns - narrow(rope.low_freq_factor)) / range;
      value = (1.0F - smooth) * value / factor + smooth * value;
    }
  }
}

double yarn_mscale(double scale, double mscale) {
  return scale <= 1.0 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

float yarn_attention_scaling(const rope_parameters& rope) {
  if (rope.attention_factor) return narrow(*rope.attention_factor);
  const double numerator = rope.mscale.value_or(0.0);
  const double denominator = rope.mscale_all_dim.value_or(0.0);
  if (numerator != 0.0 && denominator != 0.0) {
    return narrow(yarn_mscale(rope.factor, numerator) / yarn_mscale(rope.factor, denominator));
  }
  return narrow(yarn_mscale(rope.factor, 1.0));
}

// find_correction_dim: the dimension that turns `rotations` times over the trained length.
double yarn_dimension(const rope_parameters& rope, double rotations, double dim) {
  const auto trained = static_cast<double>(rope.original_max_position_embeddings);
  return dim * std::log(trained / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.rope_theta));
}

// _compute_yarn_parameters
void scale_yarn(const rope_parameters& rope, std::span<float> inv_freq) {
  const std::size_t half = inv_freq.size();
  const auto dim = static_cast<double>(2 * half);
  double low = yarn_dimension(rope, rope.beta_fast, dim);
  double high = yarn_dimension(rope, rope.beta_slow, dim);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;  // as the source: no division by zero
  for (std::size_t i = 0; i < half; ++i) {
    const float frequency = power(narrow(rope.rope_theta), exponent_at(i, half));
    const float extrapolated = 1.0F / frequency;
    const float interpolated = 1.0F / (narrow(rope.factor) * frequency);
    const float slope = (narrow(static_cast<double>(i)) - narrow(low)) / narrow(high - low);
    const float extrapolation = 1.0F - std::clamp(slope, 0.0F, 1.0F);
    inv_freq[i] = interpolated * (1.0F - extrapolation) + extrapolated * extrapolation;
  }
}

}  // namespace

void fill_inv_freq(float base, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = 1.0F / power(base, exponent_at(i, out.size()));
  }
}

rope_frequencies initial_frequencies(const model_config& config) {
  const rope_parameters& rope = config.rope;
  rope_frequencies out;
  out.inv_freq.resize(static_cast<std::size_t>(config.head_dim / 2));
  double base = rope.rope_theta;
  if (rope.type == rope_type::dynamic) {
    // The same formula in double, as Python evaluates it before it has seen a sequence; it is
    // rope_theta up to rounding.
    const auto trained = static_cast<double>(config.max_position_embeddings);
    const auto dim = static_cast<double>(config.head_dim);
    base *= std::pow(rope.factor * trained / trained - (rope.factor - 1.0), dim / (dim - 2.0));
  }
  fill_inv_freq(narrow(base), out.inv_freq);
  switch (rope.type) {
    case rope_type::linear:
      for (float& value : out.inv_freq) value /= narrow(rope.factor);
      break;
    case rope_type::llama3:
      scale_llama3(rope, out.inv_freq);
      break;
    case rope_type::yarn:
      scale_yarn(rope, out.inv_freq);
      out.attention_scaling = yarn_attention_scaling(rope);
      break;
    case rope_type::standard:
    case rope_type::dynamic:
      break;
  }
  return out;
}

float dynamic_base(const dynamic_rope& rope, std::int64_t length, std::int64_t head_dim) {
  const float stretched =
      narrow(rope.factor) * static_cast<float>(length) / static_cast<float>(rope.trained_length);
  const float growth = stretched - narrow(rope.factor - 1.0);
  const auto dim = static_cast<double>(head_dim);
  return power(growth, narrow(dim / (dim - 2.0))) * narrow(rope.rope_theta);
}

}  // namespace troupe::models
