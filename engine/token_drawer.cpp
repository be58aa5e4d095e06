#include "engine/token_drawer.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "engine/logit_changes.hpp"
#include "kernels/vocabulary/vocabulary.hpp"

namespace troupe::engine {
namespace {

constexpr std::size_t all_runs = models::canonical_runs;

}  // namespace

token_drawer::token_drawer(const parts& with)
    : with_(with),
      vocabulary_(models::vocabulary_grid(with.config)),
      own_(vocabulary_.rank_range(with.where.tp_rank, with.where.tp_size)),
      run_ends_(vocabulary_.rank_run_ends(with.where.tp_rank, with.where.tp_size)),
      host_path_(kernels::supported_paths(kernels::dtype::float32).front()) {}

row_summaries token_drawer::whole_rows::row(std::size_t index,
                                            const models::grid& vocabulary) const {
  const std::size_t each = all_runs * static_cast<std::size_t>(candidates);
  return {std::span(runs).subspan(index * all_runs, all_runs),
          std::span(top).subspan(index * each, each), candidates, vocabulary};
}

base::result<token_drawer::whole_rows> token_drawer::gather(const condensed_rows& of) {
  const std::size_t own_runs = run_ends_.size();
  const auto each = static_cast<std::size_t>(of.candidates);
  // Ranks hold [rows][own runs]; gathered they are [ranks][rows][own runs].
  std::vector<kernels::run_summary> runs(of.rows * all_runs);
  std::vector<kernels::token_candidate> top(runs.size() * each);
  TROUPE_TRY_VOID(with_.tp.all_gather(with_.epoch, std::as_bytes(of.summaries),
                                      std::as_writable_bytes(std::span(runs))));
  TROUPE_TRY_VOID(with_.tp.all_gather(with_.epoch, std::as_bytes(of.top),
                                      std::as_writable_bytes(std::span(top))));
  whole_rows whole{.candidates = of.candidates, .runs = {}, .top = {}};
  whole.runs.reserve(runs.size());
  whole.top.reserve(top.size());
  for (std::size_t row = 0; row < of.rows; ++row) {
    for (std::size_t run = 0; run < all_runs; ++run) {
      const std::size_t at = (run / own_runs * of.rows + row) * own_runs + run % own_runs;
      whole.runs.push_back(runs[at]);
      const auto first = top.begin() + static_cast<std::ptrdiff_t>(at * each);
      whole.top.insert(whole.top.end(), first, first + static_cast<std::ptrdiff_t>(each));
    }
  }
  return whole;
}

base::result<std::vector<sampled_token>> token_drawer::draw(const condensed_rows& of,
                                                            std::span<const wanted_token> wanted) {
  TROUPE_CHECK(wanted.size() <= of.rows);
  TROUPE_TRY(plain, gather(of));
  std::vector<sampled_token> tokens(wanted.size());
  std::vector<std::size_t> changed;
  std::vector<std::size_t> given;
  for (std::size_t row = 0; row < wanted.size(); ++row) {
    const row_summaries summaries = plain.row(row, vocabulary_);
    if (wanted[row].given) {
      given.push_back(row);
      continue;
    }
    const sample_request& request = *wanted[row].how;
    if (request.changes && all_finite(summaries.runs)) {
      changed.push_back(row);
      continue;
    }
    std::optional<sampled_token> token = engine::sample(request, summaries);
    if (!token) {
      TROUPE_TRY(own, read_own(of.logits, row));
      TROUPE_TRY(whole, gather_logits(own));
      token = sample_from_all(request, summaries.runs, whole);
    }
    tokens[row] = *std::move(token);
  }
  if (!changed.empty()) TROUPE_TRY_VOID(draw_changed(of, plain, wanted, changed, tokens));
  if (!given.empty()) TROUPE_TRY_VOID(score_given(of, plain, wanted, given, tokens));
  return tokens;
}

base::result<void> token_drawer::score_given(const condensed_rows& of, const whole_rows& plain,
                                             std::span<const wanted_token> wanted,
                                             std::span<const std::size_t> given,
                                             std::vector<sampled_token>& tokens) {
  std::vector<std::int32_t> ids;
  std::vector<float> mine(given.size(), 0.0F);
  for (std::size_t i = 0; i < given.size(); ++i) {
    ids.push_back(*wanted[given[i]].given);
    if (!own_.contains(ids[i])) continue;
    const float* const logit =
        of.logits.row<float>(static_cast<std::int64_t>(given[i])) + (ids[i] - own_.begin);
    TROUPE_TRY_VOID(with_.queue.read(reinterpret_cast<const std::byte*>(logit),
                                     std::as_writable_bytes(std::span(&mine[i], 1))));
  }
  TROUPE_TRY(logits, gather_logits_of(ids, std::move(mine)));
  for (std::size_t i = 0; i < given.size(); ++i) {
    const row_summaries row = plain.row(given[i], vocabulary_);
    sampled_token& token = tokens[given[i]];
    token.token_id = ids[i];
    token.finite = all_finite(row.runs);
    if (token.finite) set_logprobs(*wanted[given[i]].how, row, logits[i], token);
  }
  return {};
}

base::result<void> token_drawer::draw_changed(const condensed_rows& of, const whole_rows& plain,
                                              std::span<const wanted_token> wanted,
                                              std::span<const std::size_t> changed,
                                              std::vector<sampled_token>& tokens) {
  const auto width = static_cast<std::size_t>(own_.size());
  std::vector<std::vector<float>> own;  // as the model gave them
  std::vector<float> logits;            // changed
  std::vector<kernels::sampling_row> draws;
  std::vector<sample_request> asked;
  int candidates = 0;
  for (const std::size_t row : changed) {
    TROUPE_TRY(values, read_own(of.logits, row));
    logits.insert(logits.end(), values.begin(), values.end());
    apply(*wanted[row].how->changes, static_cast<std::int32_t>(own_.begin),
          std::span(logits).last(width));
    own.push_back(std::move(values));
    draws.push_back(sampling_row_of(*wanted[row].how));
    asked.push_back(*wanted[row].how);
    asked.back().logprobs = -1;  // those are of the model's own logits
    candidates = std::max(candidates, candidates_for(asked.back()));
  }
  const std::size_t summaries = changed.size() * run_ends_.size();
  std::vector<kernels::run_summary> runs(summaries);
  std::vector<kernels::token_candidate> top(summaries * static_cast<std::size_t>(candidates));
  const kernels::tensor_view view =
      kernels::matrix_view(logits.data(), static_cast<std::int64_t>(changed.size()), own_.size());
  kernels::summarise_vocabulary(host_path_, with_.pool,
                                {view, run_ends_, own_.begin, draws, candidates, runs, top});
  TROUPE_TRY(whole, gather({.logits = view,
                            .rows = changed.size(),
                            .candidates = candidates,
                            .summaries = runs,
                            .top = top}));
  std::vector<std::int32_t> chosen;
  for (std::size_t i = 0; i < changed.size(); ++i) {
    const row_summaries row = whole.row(i, vocabulary_);
    std::optional<sampled_token> token = engine::sample(asked[i], row);
    if (!token) {
      TROUPE_TRY(all, gather_logits(std::span(logits).subspan(i * width, width)));
      token = sample_from_all(asked[i], row.runs, all);
    }
    token->allowed = highest_logit(row.runs) > allowed_above;
    chosen.push_back(token->token_id);
    tokens[changed[i]] = *std::move(token);
  }
  std::vector<float> mine(chosen.size(), 0.0F);
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (!own_.contains(chosen[i])) continue;
    mine[i] = own[i][static_cast<std::size_t>(chosen[i] - own_.begin)];
  }
  TROUPE_TRY(plain_logits, gather_logits_of(chosen, std::move(mine)));
  for (std::size_t i = 0; i < changed.size(); ++i) {
    set_logprobs(*wanted[changed[i]].how, plain.row(changed[i], vocabulary_), plain_logits[i],
                 tokens[changed[i]]);
  }
  return {};
}

base::result<std::vector<float>> token_drawer::read_own(const kernels::tensor_view& logits,
                                                        std::size_t row) {
  std::vector<float> own(static_cast<std::size_t>(own_.size()));
  if (own.empty()) return own;
  const auto* const source =
      reinterpret_cast<const std::byte*>(logits.row<float>(static_cast<std::int64_t>(row)));
  TROUPE_TRY_VOID(with_.queue.read(source, std::as_writable_bytes(std::span(own))));
  return own;
}

base::result<std::vector<float>> token_drawer::gather_logits(std::span<const float> own) {
  std::vector<std::size_t> counts;
  for (int rank = 0; rank < with_.where.tp_size; ++rank) {
    const auto elements = vocabulary_.rank_range(rank, with_.where.tp_size).size();
    counts.push_back(static_cast<std::size_t>(elements) * sizeof(float));
  }
  std::vector<float> whole(static_cast<std::size_t>(with_.config.vocab_size));
  TROUPE_TRY_VOID(with_.tp.all_gather_v(with_.epoch, std::as_bytes(own), counts,
                                        std::as_writable_bytes(std::span(whole))));
  return whole;
}

base::result<std::vector<float>> token_drawer::gather_logits_of(
    std::span<const std::int32_t> token_ids, std::vector<float> mine) {
  std::vector<float> all(mine.size() * static_cast<std::size_t>(with_.where.tp_size));
  TROUPE_TRY_VOID(with_.tp.all_gather(with_.epoch, std::as_bytes(std::span(mine)),
                                      std::as_writable_bytes(std::span(all))));
  for (std::size_t i = 0; i < mine.size(); ++i) {
    for (int rank = 0; rank < with_.where.tp_size; ++rank) {
      if (!vocabulary_.rank_range(rank, with_.where.tp_size).contains(token_ids[i])) continue;
      mine[i] = all[static_cast<std::size_t>(rank) * mine.size() + i];
    }
  }
  return mine;
}

}  // namespace troupe::engine
