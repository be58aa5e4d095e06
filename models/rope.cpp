#include "models/rope.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.hpp"
#include "models/rope_frequencies.hpp"
#include "models/rope_trig.hpp"

namespace troupe::models {

base::result<rope> rope::make(const model_config& config) {
  TROUPE_CHECK(config.head_dim > 0 && config.head_dim % 2 == 0);
  TROUPE_CHECK(config.head_dim <= config_limits::head_dim_max);
  rope_frequencies frequencies = initial_frequencies(config);
  // At most 1 up to rounding: cos_sin is exact for angles up to 1.5 * position_max.
  const bool sound = std::ranges::all_of(frequencies.inv_freq, [](float value) {
    return std::isfinite(value) && value >= 0.0F && value <= 1.5F;
  });
  if (!sound || !std::isfinite(frequencies.attention_scaling)) {
    return base::fail(base::error_code::invalid_argument, "models",
                      fmt::format("config.json: the rotary parameters (rope_theta {}, factor {}) "
                                  "give frequencies outside 0 to 1: check rope_parameters or "
                                  "rope_scaling",
                                  config.rope.rope_theta, config.rope.factor));
  }
  rope out;
  out.inv_freq_ = std::move(frequencies.inv_freq);
  out.attention_scaling_ = frequencies.attention_scaling;
  out.dynamic_ = config.rope.type == rope_type::dynamic;
  out.rope_theta_ = config.rope.rope_theta;
  out.factor_ = config.rope.factor;
  out.trained_length_ = config.max_position_embeddings;
  return out;
}

void rope::dynamic_inv_freq(std::int64_t length, std::span<float> out) const {
  const dynamic_rope parameters{
      .rope_theta = rope_theta_, .factor = factor_, .trained_length = trained_length_};
  const auto head_dim = static_cast<std::int64_t>(2 * inv_freq_.size());
  fill_inv_freq(dynamic_base(parameters, length, head_dim), out);
}

void rope::fill(std::span<const std::int64_t> positions, std::span<const std::int64_t> rope_lengths,
                std::span<float> cos, std::span<float> sin) const {
  const std::size_t half = inv_freq_.size();
  TROUPE_CHECK(cos.size() == positions.size() * half && sin.size() == cos.size());
  TROUPE_CHECK(rope_lengths.size() == positions.size() || (!dynamic_ && rope_lengths.empty()));
  std::array<float, config_limits::head_dim_max / 2> angles;
  std::array<float, config_limits::head_dim_max / 2> scaled;
  std::int64_t scaled_length = 0;
  for (std::size_t token = 0; token < positions.size(); ++token) {
    const std::int64_t position = positions[token];
    TROUPE_CHECK(position >= 0 && position <= position_max);
    const float* frequencies = inv_freq_.data();
    if (dynamic_ && rope_lengths[token] > trained_length_) {
      TROUPE_CHECK(rope_lengths[token] <= position_max + 1);
      if (rope_lengths[token] != scaled_length) {
        scaled_length = rope_lengths[token];
        dynamic_inv_freq(scaled_length, std::span(scaled).first(half));
      }
      frequencies = scaled.data();
    }
    const auto at = static_cast<float>(position);
    for (std::size_t i = 0; i < half; ++i) angles[i] = at * frequencies[i];
    cos_sin(std::span(angles).first(half), attention_scaling_, cos.subspan(token * half, half),
            sin.subspan(token * half, half));
  }
}

}  // namespace troupe::models
