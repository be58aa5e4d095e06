// One row set of logits with its canonical runs, and the summaries of it.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/vocabulary/vocabulary.hpp"
#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels::vector_testing {

struct vocabulary_result {
  std::vector<run_summary> summaries;
  std::vector<token_candidate> top;
};

struct vocabulary_case {
  vocabulary_case(std::int64_t rows, std::vector<std::int64_t> ends, int wanted)
      : logits(rows, ends.empty() ? 0 : ends.back()),
        run_ends(std::move(ends)),
        candidates(wanted) {
    for (std::int64_t row = 0; row < rows; ++row) {
      sampling.push_back({.temperature = 0.8F,
                          .seed = 1000 + static_cast<std::uint64_t>(row),
                          .choice = static_cast<std::uint32_t>(row % 3),
                          .token_index = static_cast<std::uint64_t>(row * row)});
    }
  }

  padded_matrix<> logits;
  std::vector<std::int64_t> run_ends;
  int candidates;
  std::int64_t first_token_id = 0;
  std::vector<sampling_row> sampling;

  [[nodiscard]] std::size_t places() const { return sampling.size() * run_ends.size(); }
  [[nodiscard]] vocabulary_result empty_result() const {
    vocabulary_result result;
    result.summaries.resize(places());
    result.top.resize(places() * static_cast<std::size_t>(candidates), {-7, poison});
    return result;
  }
  [[nodiscard]] summarise_vocabulary_args args(vocabulary_result& result) {
    return {.logits = logits.view(),
            .run_ends = run_ends,
            .first_token_id = first_token_id,
            .rows = sampling,
            .candidates = candidates,
            .summaries = result.summaries,
            .top = result.top};
  }
  [[nodiscard]] vocabulary_result run(instruction_path path, int threads = 1) {
    thread_pool pool({.threads = threads});
    vocabulary_result result = empty_result();
    summarise_vocabulary(path, pool, args(result));
    return result;
  }
  [[nodiscard]] vocabulary_result reference() {
    vocabulary_result result = empty_result();
    summarise_vocabulary_reference(args(result));
    return result;
  }
};

[[nodiscard]] inline std::string text_of(const run_summary& s) {
  return "maximum " + std::to_string(s.maximum) + " sums " + std::to_string(s.sum_exp) + ", " +
         std::to_string(s.sum_exp_tempered) + " best " + std::to_string(s.noise_best.token_id) +
         " logit " + std::to_string(s.noise_best.logit) + " score " +
         std::to_string(s.noise_best_score) + (s.finite ? " finite" : " not finite");
}

// Every field but the sums, bit for bit.
[[nodiscard]] inline bool same_choice(const run_summary& a, const run_summary& b) {
  const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
  return bits(a.maximum) == bits(b.maximum) &&
         bits(a.noise_best_score) == bits(b.noise_best_score) &&
         a.noise_best.token_id == b.noise_best.token_id &&
         bits(a.noise_best.logit) == bits(b.noise_best.logit) && a.finite == b.finite;
}
[[nodiscard]] inline bool same_summary(const run_summary& a, const run_summary& b) {
  const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
  return same_choice(a, b) && bits(a.sum_exp) == bits(b.sum_exp) &&
         bits(a.sum_exp_tempered) == bits(b.sum_exp_tempered);
}
[[nodiscard]] inline bool same_candidate(const token_candidate& a, const token_candidate& b) {
  return a.token_id == b.token_id &&
         std::bit_cast<std::uint32_t>(a.logit) == std::bit_cast<std::uint32_t>(b.logit);
}

}  // namespace troupe::kernels::vector_testing
