// Cosine and sine of float32 angles, the same bits on every machine.
//
// The C library's sin and cos differ between versions and processors; these use only additions and
// multiplications in double, so a rank computes what any other would. Accurate to half a unit in
// the last place of float32 and a little (the double result is within 2^-45 before it is rounded).
#pragma once

#include <span>

namespace troupe::models {

// cos[i] = float(cos(angles[i])) * scale, likewise sin; the product in float32, as transformers has
// it. Shape: three spans of one length. Range: angles in [0, 1.5 * 2^28]. Cost: about 25
// multiplications a pair.
void cos_sin(std::span<const float> angles, float scale, std::span<float> cos,
             std::span<float> sin) noexcept;

}  // namespace troupe::models
