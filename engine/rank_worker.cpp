#include "engine/rank_worker.hpp"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "engine/sampler.hpp"
#include "engine/step_inputs.hpp"
#include "models/registry.hpp"

namespace troupe::engine {

rank_worker::rank_worker(rank_worker_options options)
    : options_(std::move(options)),
      vocabulary_(models::vocabulary_grid(options_.config)
                      .rank_range(options_.where.tp_rank, options_.where.tp_size)),
      vocabulary_run_ends_(models::vocabulary_grid(options_.config)
                               .rank_run_ends(options_.where.tp_rank, options_.where.tp_size)),
      logits_rows_(std::clamp<std::int64_t>(
          logits_bytes_max / std::max<std::int64_t>(1, vocabulary_.size() * 4), 1,
          options_.max_num_seqs)),
      pool_({.threads = options_.threads}),
      queue_(pool_) {}

std::size_t scratch_bytes(const models::model& of, const rank_scratch& rank) {
  using kernels::arena;
  const std::int64_t vocabulary = models::vocabulary_grid(rank.config)
                                      .rank_range(rank.where.tp_rank, rank.where.tp_size)
                                      .size();
  const std::int64_t hidden = rank.config.hidden_size;
  const std::size_t step = of.arena_bytes(rank.max_num_batched_tokens) +
                           arena::bytes_of(rank.type, rank.max_num_seqs, hidden) +
                           arena::bytes_of(kernels::dtype::float32, rank.max_num_seqs, hidden);
  const auto logits = static_cast<std::size_t>(
      std::max(std::min(logits_bytes_max, rank.max_num_seqs * vocabulary * 4), vocabulary * 4));
  // Each view may round up to the arena's alignment; a step has far fewer views at once than this.
  return step + logits + 16 * arena::alignment_bytes;
}

base::result<std::unique_ptr<rank_worker>> rank_worker::load(rank_worker_options options) {
  std::unique_ptr<rank_worker> worker(new rank_worker(std::move(options)));
  const rank_worker_options& own = worker->options_;
  TROUPE_TRY(ops, kernels::make_cpu_ops(own.profile.path));
  worker->ops_ = std::move(ops);
  models::weight_reader_options reading{.files = own.files,
                                        .type = own.profile.weights,
                                        .pool = &worker->pool_,
                                        .plan_only = false,
                                        .progress = own.progress,
                                        .vitals = own.vitals};
  if (own.digest != nullptr) {
    reading.after_part = [&](const models::matrix_part& part) {
      return own.digest->packed(part.name, worker->pool_);
    };
  }
  models::weight_reader reader(std::move(reading));
  TROUPE_TRY(model, models::load({reader, own.config, own.where}));
  worker->model_ = std::move(model);
  worker->weight_bytes_ = reader.bytes();
  if (own.digest != nullptr) {
    TROUPE_TRY_VOID(own.digest->finish(worker->pool_, [&](std::uint64_t hashed) {
      if (own.progress) own.progress(reader.bytes() + hashed);
    }));
  }
  TROUPE_TRY(cache, kv_cache::allocate(own.config, own.where, own.profile.kv_cache, own.kv_blocks));
  worker->cache_ = std::move(cache);
  TROUPE_TRY(scratch,
             kernels::buffer::allocate(
                 scratch_bytes(*worker->model_, {own.config, own.where, own.profile.weights,
                                                 own.max_num_batched_tokens, own.max_num_seqs}),
                 "a step's scratch memory"));
  worker->arena_ = kernels::arena(std::move(scratch));
  return worker;
}

void rank_worker::join(transport::rank_groups groups, base::epoch_id epoch) noexcept {
  groups_ = std::move(groups);
  epoch_ = epoch;
}

void rank_worker::leave() noexcept {
  groups_ = {};
  epoch_ = {};
}

void rank_worker::abort() noexcept {
  if (groups_.tp) groups_.tp->abort();
  if (groups_.pp) groups_.pp->abort();
}

base::result<void> rank_worker::check(const step_plan& plan) const {
  // Before anything is written to the cache: a late plan must not touch a new epoch's blocks.
  if (!groups_.tp || plan.epoch != epoch_) {
    return base::fail(base::error_code::aborted, "engine",
                      "a step of epoch " + std::to_string(plan.epoch.number) +
                          " on a rank of epoch " + std::to_string(epoch_.number) +
                          ": its work is out of date and was dropped");
  }
  const bool plain =
      std::all_of(plan.sequences.begin(), plan.sequences.end(), [](const planned_rows& rows) {
        return !rows.adapter_id && !rows.row_group && rows.draft_token_ids.empty();
      });
  if (!plain || plan.model_id) {
    return base::fail(base::error_code::unimplemented, "engine",
                      "the plan asks for an adapter, a row group, draft tokens or another model, "
                      "which this build cannot run");
  }
  return {};
}

base::result<step_result> rank_worker::run(const step_plan& plan) {
  TROUPE_TRY_VOID(check(plan));
  const step_inputs inputs(plan, models::kv_groups(options_.config).size());
  models::step_context context{*ops_,       queue_,     arena_,          *groups_.tp,
                               *groups_.pp, plan.epoch, cache_.layers(), options_.vitals};
  const kernels::arena::scope scope(arena_);
  const auto rows = static_cast<std::int64_t>(inputs.batch().logits_rows.size());
  kernels::tensor_view hidden;
  if (options_.where.last_stage()) {
    hidden = arena_.take(options_.profile.weights, rows, options_.config.hidden_size);
  }
  TROUPE_TRY_VOID(model_->forward(context, inputs.batch(), hidden));
  if (!options_.where.last_stage()) return step_result{};
  return sample(context, plan, hidden);
}

base::result<step_result> rank_worker::sample(models::step_context& context, const step_plan& plan,
                                              const kernels::tensor_view& hidden) {
  std::vector<const planned_rows*> rows;
  for (const planned_rows& planned : plan.sequences) {
    if (planned.sample) rows.push_back(&planned);
  }
  step_result result;
  const auto slice = static_cast<std::size_t>(logits_rows_);
  for (std::size_t begin = 0; begin < rows.size(); begin += slice) {
    const std::size_t count = std::min(slice, rows.size() - begin);
    TROUPE_TRY_VOID(sample_slice(context, std::span(rows).subspan(begin, count),
                                 kernels::row_slice(hidden, static_cast<std::int64_t>(begin),
                                                    static_cast<std::int64_t>(count)),
                                 result));
  }
  return result;
}

base::result<void> rank_worker::sample_slice(models::step_context& context,
                                             std::span<const planned_rows* const> rows,
                                             const kernels::tensor_view& hidden,
                                             step_result& result) {
  const kernels::arena::scope scope(arena_);
  const kernels::tensor_view logits =
      arena_.take(kernels::dtype::float32, hidden.rows(), vocabulary_.size());
  model_->logits(context, hidden, logits);

  std::vector<kernels::sampling_row> sampling;
  int candidates = 0;
  for (const planned_rows* planned : rows) {
    sampling.push_back(sampling_row_of(*planned->sample));
    candidates = std::max(candidates, candidates_for(*planned->sample));
  }
  const std::size_t own_runs = vocabulary_run_ends_.size();
  const auto each = static_cast<std::size_t>(candidates);
  const std::size_t all_runs = models::canonical_runs;
  std::vector<kernels::run_summary> own(rows.size() * own_runs);
  std::vector<kernels::token_candidate> own_top(own.size() * each);
  ops_->summarise_vocabulary(queue_, {logits, vocabulary_run_ends_, vocabulary_.begin, sampling,
                                      candidates, own, own_top});
  queue_.synchronize();

  // Ranks hold [rows][own runs]; gathered they are [ranks][rows][own runs].
  std::vector<kernels::run_summary> all(rows.size() * all_runs);
  std::vector<kernels::token_candidate> all_top(all.size() * each);
  TROUPE_TRY_VOID(context.tp.all_gather(context.epoch, std::as_bytes(std::span(own)),
                                        std::as_writable_bytes(std::span(all))));
  TROUPE_TRY_VOID(context.tp.all_gather(context.epoch, std::as_bytes(std::span(own_top)),
                                        std::as_writable_bytes(std::span(all_top))));
  for (std::size_t row = 0; row < rows.size(); ++row) {
    std::vector<kernels::run_summary> runs;
    std::vector<kernels::token_candidate> top;
    for (std::size_t run = 0; run < all_runs; ++run) {
      const std::size_t rank = run / own_runs;
      const std::size_t at = (rank * rows.size() + row) * own_runs + run % own_runs;
      runs.push_back(all[at]);
      const auto first = all_top.begin() + static_cast<std::ptrdiff_t>(at * each);
      top.insert(top.end(), first, first + static_cast<std::ptrdiff_t>(each));
    }
    const sample_request& request = *rows[row]->sample;
    std::optional<sampled_token> token =
        engine::sample(request, {runs, top, candidates, models::vocabulary_grid(options_.config)});
    if (!token) {
      TROUPE_TRY(whole, gather_logits(context, logits, static_cast<std::int64_t>(row)));
      token = sample_from_all(request, runs, whole);
    }
    token->sequence = rows[row]->sequence;
    result.tokens.push_back(*std::move(token));
  }
  return {};
}

base::result<std::vector<float>> rank_worker::gather_logits(models::step_context& context,
                                                            const kernels::tensor_view& logits,
                                                            std::int64_t row) {
  const models::grid vocabulary = models::vocabulary_grid(options_.config);
  std::vector<std::size_t> counts;
  for (int rank = 0; rank < options_.where.tp_size; ++rank) {
    const auto elements = vocabulary.rank_range(rank, options_.where.tp_size).size();
    counts.push_back(static_cast<std::size_t>(elements) * sizeof(float));
  }
  std::vector<float> whole(static_cast<std::size_t>(options_.config.vocab_size));
  const auto elements = static_cast<std::size_t>(vocabulary_.size());
  const std::span<const float> own(elements == 0 ? nullptr : logits.row<float>(row), elements);
  TROUPE_TRY_VOID(context.tp.all_gather_v(context.epoch, std::as_bytes(own), counts,
                                          std::as_writable_bytes(std::span(whole))));
  return whole;
}

}  // namespace troupe::engine
