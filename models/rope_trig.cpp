#include "models/rope_trig.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace troupe::models {
namespace {

// pi/2 in three parts. The first two have 25 bits each, so that their products with a quotient
// below 2^28 are exact in double's 53; what is cut off after the third is below 2^-103.
constexpr double half_pi_high = 0x1.921fb5p+0;
constexpr double half_pi_middle = 0x1.110b46p-26;
constexpr double half_pi_low = 0x1.1a62633145c07p-54;
constexpr double two_over_pi = 0x1.45f306dc9c883p-1;
// Adding and taking away 1.5 * 2^52 rounds to the nearest integer.
constexpr double round_shift = 0x1.8p52;

// Taylor series on [-pi/4, pi/4]; the first term left out is below 2^-58 of the result.
constexpr std::size_t terms = 9;

constexpr std::array<double, terms> series(int first) {
  std::array<double, terms> out{};
  double factorial = 1.0;
  for (int n = 1, i = 0; i < static_cast<int>(terms); ++n) {
    if ((n - 1) % 2 == first) {
      out[static_cast<std::size_t>(i)] = (i % 2 == 0 ? 1.0 : -1.0) / factorial;
      ++i;
    }
    factorial *= n;
  }
  return out;
}
constexpr std::array<double, terms> cos_series = series(0);  // 1, -1/2!, 1/4!, ...
constexpr std::array<double, terms> sin_series = series(1);  // 1, -1/3!, 1/5!, ...

double polynomial(const std::array<double, terms>& series, double square) noexcept {
  double sum = series[terms - 1];
  for (std::size_t i = terms - 1; i-- > 0;) sum = sum * square + series[i];
  return sum;
}

}  // namespace

void cos_sin(std::span<const float> angles, float scale, std::span<float> cos,
             std::span<float> sin) noexcept {
  for (std::size_t i = 0; i < angles.size(); ++i) {
    const double angle = angles[i];
    const double quotient = (angle * two_over_pi + round_shift) - round_shift;
    const double rest =
        ((angle - quotient * half_pi_high) - quotient * half_pi_middle) - quotient * half_pi_low;
    const double square = rest * rest;
    const double near_cos = polynomial(cos_series, square);
    const double near_sin = rest * polynomial(sin_series, square);
    const auto quadrant = static_cast<std::int32_t>(quotient);
    const bool swapped = (quadrant & 1) != 0;
    const double cos_size = swapped ? near_sin : near_cos;
    const double sin_size = swapped ? near_cos : near_sin;
    const double cos_value = ((quadrant + 1) & 2) != 0 ? -cos_size : cos_size;
    const double sin_value = (quadrant & 2) != 0 ? -sin_size : sin_size;
    cos[i] = static_cast<float>(cos_value) * scale;
    sin[i] = static_cast<float>(sin_value) * scale;
  }
}

}  // namespace troupe::models
