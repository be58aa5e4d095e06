// Rotary position embedding: the cosines and sines of a token's position, for every scaling that
// config.json can ask for.
//
// Frequencies follow transformers' float32 arithmetic step by step (modeling_rope_utils.py), angles
// are its float32 product, cosines and sines are correctly rounded from there (rope_trig.hpp).
//
// Dynamic scaling recomputes its base from the sequence's length. So that neither chunking nor the
// batch changes a result, the length belongs to the token: see length_of(). It gives what
// transformers gives for one sequence: all of a prompt with the prompt's length, then each new
// token with its own. Cached keys keep the rotation of their time, so a cache entry of such a model
// is valid only for the prompt length it was computed under.
//
// Immutable; any thread may call it.
//
//   TROUPE_TRY(rotary, models::rope::make(config));
//   rotary.fill(positions, lengths, cos, sin);
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "models/config.hpp"

namespace troupe::models {

class rope {
 public:
  static constexpr std::int64_t position_max = config_limits::max_position_embeddings_max;

  // Errors: invalid_argument (numbers that give no finite frequencies).
  [[nodiscard]] static base::result<rope> make(const model_config& config);

  // Multiplies every cosine and sine: 1 but for yarn. fill() has applied it already.
  [[nodiscard]] float attention_scaling() const noexcept { return attention_scaling_; }

  // Whether fill() needs rope_lengths (dynamic scaling).
  [[nodiscard]] bool depends_on_length() const noexcept { return dynamic_; }

  // Frequencies up to the trained length. Shape: [head_dim/2].
  [[nodiscard]] std::span<const float> inv_freq() const noexcept { return inv_freq_; }

  // The rope length of the token at `position` of a sequence whose prompt has `prompt_tokens`.
  [[nodiscard]] static constexpr std::int64_t length_of(std::int64_t position,
                                                        std::int64_t prompt_tokens) noexcept {
    return position < prompt_tokens ? prompt_tokens : position + 1;
  }

  // Shape: positions [tokens]; rope_lengths [tokens], may be empty unless depends_on_length();
  // cos, sin [tokens][head_dim/2]. Range: positions and lengths from 0 to position_max.
  // Cost: per token head_dim/2 sine-cosine pairs; per change of length head_dim/2 powers.
  void fill(std::span<const std::int64_t> positions, std::span<const std::int64_t> rope_lengths,
            std::span<float> cos, std::span<float> sin) const;

 private:
  rope() = default;
  void dynamic_inv_freq(std::int64_t length, std::span<float> out) const;

  std::vector<float> inv_freq_;
  float attention_scaling_ = 1.0F;
  bool dynamic_ = false;
  double rope_theta_ = 0.0;
  double factor_ = 1.0;
  std::int64_t trained_length_ = 0;  // max_position_embeddings
};

}  // namespace troupe::models
