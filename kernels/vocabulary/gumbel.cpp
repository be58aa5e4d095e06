#include "kernels/vocabulary/gumbel.hpp"

#include <algorithm>

#include "kernels/vocabulary/philox.hpp"
#include "kernels/vocabulary/vocabulary.hpp"

namespace troupe::kernels {

std::uint32_t noise_bits(const sampling_row& row, std::int32_t token_id) noexcept {
  const auto id = static_cast<std::uint32_t>(token_id);
  const auto words = philox4x32_10(
      {id / 4, row.choice, static_cast<std::uint32_t>(row.token_index),
       static_cast<std::uint32_t>(row.token_index >> 32)},
      {static_cast<std::uint32_t>(row.seed), static_cast<std::uint32_t>(row.seed >> 32)});
  return words[id % 4];
}

float gumbel_noise(const sampling_row& row, std::int32_t token_id) noexcept {
  return gumbel_from_bits(noise_bits(row, token_id));
}

float inverse_temperature(float temperature) noexcept {
  return 1.0F / std::max(temperature, temperature_min);
}

float perturbed_score(const sampling_row& row, std::int32_t token_id, float logit) noexcept {
  if (row.temperature == 0.0F) return logit;
  const float tempered = logit * inverse_temperature(row.temperature);
  return tempered + gumbel_noise(row, token_id);
}

}  // namespace troupe::kernels
