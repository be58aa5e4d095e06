// From rows of logits to tokens, on the ranks of the last stage: gathers what the ranks' parts of
// the vocabulary were condensed to, and takes the same decision on each.
//
// A row that its request changes (penalties, grammar ...) is condensed twice: as the model gave it,
// for the log probabilities, and changed, to draw from. The second runs on the host, over a copy.
//
//   token_drawer drawer({.tp = *groups.tp, .epoch = epoch, .queue = queue, .pool = pool, ...});
//   TROUPE_TRY(tokens, drawer.draw(condensed, wanted));   // in the order of the rows
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "engine/sampler.hpp"
#include "engine/step_plan.hpp"
#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/queue.hpp"
#include "kernels/thread_pool.hpp"
#include "models/config.hpp"
#include "models/placement.hpp"
#include "transport/collective.hpp"

namespace troupe::engine {

// Some rows of a step, of this rank's part of the vocabulary. All is ready to be read: the logits
// through the queue, the rest from host memory.
struct condensed_rows {
  kernels::tensor_view logits;                      // [rows][own vocabulary], float32
  std::size_t rows = 0;                             // may be more than are drawn from (padding)
  int candidates = 0;                               // a run
  std::span<const kernels::run_summary> summaries;  // [rows][own runs]
  std::span<const kernels::token_candidate> top;    // [rows][own runs][candidates]
};

// What is wanted of a row.
struct wanted_token {
  const sample_request* how = nullptr;
  std::optional<std::int32_t> given = {};  // the token is this one: only how likely it is
};

class token_drawer {
 public:
  // Borrowed for the drawer's life.
  struct parts {
    transport::collective& tp;
    base::epoch_id epoch;
    kernels::queue& queue;
    kernels::thread_pool& pool;
    const models::model_config& config;
    models::placement where;
  };
  explicit token_drawer(const parts& with);

  // Shape: wanted [<= of.rows]. Errors: those of the group and of the queue.
  [[nodiscard]] base::result<std::vector<sampled_token>> draw(const condensed_rows& of,
                                                              std::span<const wanted_token> wanted);

 private:
  // What the ranks' parts make together.
  struct whole_rows {
    int candidates = 0;
    std::vector<kernels::run_summary> runs;     // [rows][canonical runs]
    std::vector<kernels::token_candidate> top;  // [rows][canonical runs][candidates]
    [[nodiscard]] row_summaries row(std::size_t index, const models::grid& vocabulary) const;
  };
  [[nodiscard]] base::result<whole_rows> gather(const condensed_rows& of);
  [[nodiscard]] base::result<std::vector<float>> read_own(const kernels::tensor_view& logits,
                                                          std::size_t row);
  [[nodiscard]] base::result<std::vector<float>> gather_logits(std::span<const float> own);
  [[nodiscard]] base::result<void> draw_changed(const condensed_rows& of, const whole_rows& plain,
                                                std::span<const wanted_token> wanted,
                                                std::span<const std::size_t> changed,
                                                std::vector<sampled_token>& tokens);
  [[nodiscard]] base::result<void> score_given(const condensed_rows& of, const whole_rows& plain,
                                               std::span<const wanted_token> wanted,
                                               std::span<const std::size_t> given,
                                               std::vector<sampled_token>& tokens);
  // The logit of one token of each row: who has it tells the others. `mine`: of the tokens of this
  // rank's part.
  [[nodiscard]] base::result<std::vector<float>> gather_logits_of(
      std::span<const std::int32_t> token_ids, std::vector<float> mine);

  parts with_;
  models::grid vocabulary_;
  models::range own_;
  std::vector<std::int64_t> run_ends_;
  kernels::instruction_path host_path_;  // of the second condensing: the same bits on each
};

}  // namespace troupe::engine
