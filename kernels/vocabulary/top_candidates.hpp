// Keeps the best of a stream of candidates in bounded memory: a buffer that is cut back to the
// wanted number whenever it is full, which raises the bar for what follows.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>

#include "kernels/vocabulary/vocabulary_types.hpp"

namespace troupe::kernels {

class top_candidates {
 public:
  // `threshold`: a logit that the last of the wanted candidates is known to reach.
  top_candidates(int wanted, float threshold) noexcept
      : wanted_(static_cast<std::size_t>(wanted)),
        limit_(std::min(4 * wanted_ + slack, kept_.size())),
        threshold_(threshold) {}

  [[nodiscard]] float threshold() const noexcept { return threshold_; }

  // Candidates come by ascending id, no NaN among them.
  void offer(float logit, std::int32_t token_id) {
    if (!(logit >= threshold_)) return;
    kept_[count_++] = key_of(logit, token_id);
    if (count_ < limit_) return;
    select();
    // Later candidates have higher ids: equal to the last kept is not enough.
    threshold_ =
        std::nextafter(logit_of(kept_[wanted_ - 1]), std::numeric_limits<float>::infinity());
  }

  // Best first; -1 where there are fewer. Lifetime: offers end here. Shape: out [wanted].
  void write(const float* logits, std::int64_t first_id, std::span<token_candidate> out) {
    if (count_ > wanted_) select();
    std::sort(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(count_), std::greater<>());
    std::fill(out.begin(), out.end(), token_candidate{});
    for (std::size_t i = 0; i < count_; ++i) {
      const auto id = static_cast<std::int32_t>(~static_cast<std::uint32_t>(kept_[i]));
      out[i] = {id, logits[id - first_id]};
    }
  }

 private:
  static constexpr std::size_t slack = 64;  // room to gather even when one is wanted

  // Higher for a higher logit, then for a lower id: one comparison of whole numbers. Zeros of both
  // signs count as equal.
  static std::uint64_t key_of(float logit, std::int32_t token_id) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(logit + 0.0F);
    const std::uint32_t ordered = (bits & sign) != 0 ? ~bits : bits | sign;
    return (std::uint64_t{ordered} << 32) | ~static_cast<std::uint32_t>(token_id);
  }
  static float logit_of(std::uint64_t key) noexcept {
    const auto ordered = static_cast<std::uint32_t>(key >> 32);
    return std::bit_cast<float>((ordered & sign) != 0 ? ordered & ~sign : ~ordered);
  }
  static constexpr std::uint32_t sign = 0x80000000U;

  // Cuts back to the wanted ones, the last of them last.
  void select() {
    std::nth_element(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(wanted_ - 1),
                     kept_.begin() + static_cast<std::ptrdiff_t>(count_), std::greater<>());
    count_ = wanted_;
  }

  std::size_t wanted_;
  std::size_t limit_;
  std::size_t count_ = 0;
  float threshold_;
  std::array<std::uint64_t, 4 * vocabulary_candidates_max> kept_;
};

}  // namespace troupe::kernels
