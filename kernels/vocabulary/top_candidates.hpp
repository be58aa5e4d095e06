// Keeps the best of a stream of candidates in bounded memory: a buffer that is cut back to the
// wanted number whenever it is full, which raises the bar for what follows.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "kernels/vocabulary/vocabulary_types.hpp"

namespace troupe::kernels {

class top_candidates {
 public:
  // `threshold`: a logit that the last of the wanted candidates is known to reach.
  top_candidates(int wanted, float threshold) noexcept
      : wanted_(static_cast<std::size_t>(wanted)),
        limit_(2 * wanted_ + slack),
        threshold_(threshold) {}

  [[nodiscard]] float threshold() const noexcept { return threshold_; }

  // Candidates come by ascending id, no NaN among them.
  void offer(token_candidate candidate) {
    if (!(candidate.logit >= threshold_)) return;
    kept_[count_++] = candidate;
    if (count_ < limit_) return;
    const auto middle = kept_.begin() + static_cast<std::ptrdiff_t>(wanted_);
    std::nth_element(kept_.begin(), middle - 1, kept_.begin() + static_cast<std::ptrdiff_t>(count_),
                     better);
    count_ = wanted_;
    // Later candidates have higher ids: equal to the last kept is not enough.
    threshold_ = std::nextafter((middle - 1)->logit, std::numeric_limits<float>::infinity());
  }

  // Best first; -1 where there are fewer. Shape: out [wanted].
  void write(std::span<token_candidate> out) {
    const std::size_t found = std::min(wanted_, count_);
    std::partial_sort(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(found),
                      kept_.begin() + static_cast<std::ptrdiff_t>(count_), better);
    std::copy_n(kept_.begin(), found, out.begin());
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(found), out.end(), token_candidate{});
  }

 private:
  static constexpr std::size_t slack = 64;  // room to gather even when one is wanted
  static bool better(const token_candidate& a, const token_candidate& b) noexcept {
    return a.logit != b.logit ? a.logit > b.logit : a.token_id < b.token_id;
  }

  std::size_t wanted_;
  std::size_t limit_;
  std::size_t count_ = 0;
  float threshold_;
  std::array<token_candidate, 2 * vocabulary_candidates_max + slack> kept_;
};

}  // namespace troupe::kernels
