// Recorded decode steps: a step in which every sequence computes one token and draws the next looks
// the same to a device however often it comes, but for the bytes of its inputs. Steps are rounded
// up to a few shapes; one that comes a second time is recorded, later ones are replayed.
//
// Changes no bits: a padded sequence computes into a block of its own and is dropped.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "engine/step_inputs.hpp"
#include "kernels/queue.hpp"

namespace troupe::engine {

class step_recorder {
 public:
  // Recordings kept; each holds some hundred KiB of host memory. Ten sizes of batch by a few
  // lengths and candidate counts fit.
  static constexpr std::size_t recordings_max = 128;

  explicit step_recorder(std::int64_t sequences_max) : sequences_max_(sequences_max) {}

  // Whether a step can be recorded at all.
  [[nodiscard]] static bool repeats(const step_plan& plan) noexcept;
  // The shape that stands for it.
  [[nodiscard]] step_shape rounded(const step_shape& shape) const noexcept;
  [[nodiscard]] static int rounded_candidates(int candidates) noexcept;

  struct key {
    step_shape shape;
    int candidates = 0;
    friend auto operator<=>(const key&, const key&) = default;
  };
  // Does `work`, by replay where it was recorded. Errors: those of the work and of the queue.
  [[nodiscard]] base::result<void> run(const key& of, kernels::queue& on,
                                       const std::function<base::result<void>()>& work);

  // Of what had been recorded before.
  [[nodiscard]] std::uint64_t replays() const noexcept { return replays_; }

 private:
  [[nodiscard]] base::result<void> record(std::unique_ptr<kernels::recording>& into,
                                          kernels::queue& on,
                                          const std::function<base::result<void>()>& work);

  std::int64_t sequences_max_;
  std::map<key, std::unique_ptr<kernels::recording>> seen_;  // null: came once
  std::uint64_t replays_ = 0;
};

}  // namespace troupe::engine
