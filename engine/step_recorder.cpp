#include "engine/step_recorder.hpp"

#include <algorithm>
#include <bit>

namespace troupe::engine {
namespace {

// Tables of at least this many blocks, then powers of two: 1024 positions.
constexpr std::int64_t table_blocks_min = 64;

std::int64_t power_of_two_from(std::int64_t value) noexcept {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(value)));
}

// 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, ...: no step is padded by more than a half.
std::int64_t rounded_sequences(std::int64_t sequences) noexcept {
  const std::int64_t above = power_of_two_from(sequences);
  const std::int64_t between = above / 4 * 3;
  return sequences > 8 && sequences <= between ? between : above;
}

}  // namespace

bool step_recorder::repeats(const step_plan& plan) noexcept {
  return !plan.sequences.empty() &&
         std::all_of(plan.sequences.begin(), plan.sequences.end(), [](const planned_rows& rows) {
           return rows.token_ids.size() == 1 && rows.sample && !rows.scored;
         });
}

step_shape step_recorder::rounded(const step_shape& shape) const noexcept {
  const std::int64_t sequences =
      std::max(shape.sequences, std::min(sequences_max_, rounded_sequences(shape.sequences)));
  return shape.padded(sequences, power_of_two_from(std::max(table_blocks_min, shape.table_blocks)));
}

int step_recorder::rounded_candidates(int candidates) noexcept {
  constexpr int least = 8;
  if (candidates == 0) return 0;
  return std::max(least, static_cast<int>(power_of_two_from(candidates)));
}

base::result<void> step_recorder::run(const key& of, kernels::queue& on,
                                      const std::function<base::result<void>()>& work) {
  const auto found = seen_.find(of);
  if (found == seen_.end()) {  // the first time prepares whatever recording could not
    TROUPE_TRY_VOID(work());
    if (seen_.size() >= recordings_max) seen_.clear();
    seen_.emplace(of, nullptr);
    return {};
  }
  if (found->second && !found->second->current()) {
    found->second = nullptr;
    return work();
  }
  if (found->second) {
    ++replays_;
  } else {
    TROUPE_TRY_VOID(record(found->second, on, work));
  }
  return found->second->replay();
}

base::result<void> step_recorder::record(std::unique_ptr<kernels::recording>& into,
                                         kernels::queue& on,
                                         const std::function<base::result<void>()>& work) {
  TROUPE_TRY_VOID(on.begin_recording());
  const auto done = work();
  auto recorded = on.end_recording();
  if (!done) return tl::unexpected(done.error());
  if (!recorded) return tl::unexpected(std::move(recorded).error());
  into = *std::move(recorded);
  return {};
}

}  // namespace troupe::engine
