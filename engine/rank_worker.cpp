#include "engine/rank_worker.hpp"

#include <algorithm>
#include <iterator>
#include <span>
#include <string>
#include <utility>

#include "base/check.hpp"
#include "engine/device_groups.hpp"
#include "models/registry.hpp"

namespace troupe::engine {
namespace {

constexpr std::int64_t logits_limit(bool on_device) noexcept {
  return on_device ? device_logits_bytes_max : logits_bytes_max;
}

// What is wanted of a step's rows: those that are sampled, by slot, then those that are scored.
struct step_requests {
  std::vector<wanted_token> rows;
  std::vector<base::sequence_id> sequences;
  std::size_t sampled = 0;
  std::vector<std::unique_ptr<sample_request>> made;  // that the plan does not hold as they are
};

void add_scored(step_requests& requests, const planned_rows& planned) {
  if (!planned.scored) return;
  requests.made.push_back(std::make_unique<sample_request>(
      sample_request{.row = {}, .logprobs = planned.scored->logprobs}));
  for (const std::int32_t id : planned.scored->token_ids) {
    requests.rows.push_back({.how = requests.made.back().get(), .given = id});
    requests.sequences.push_back(planned.sequence);
  }
}

base::result<step_requests> requests_of(const step_plan& plan, const changes_source& following) {
  step_requests requests;
  std::vector<std::size_t> open;
  for (const planned_rows& planned : plan.sequences) {
    if (!planned.sample) continue;
    if (planned.sample->changes_follow) open.push_back(requests.rows.size());
    requests.rows.push_back({.how = &*planned.sample});
    requests.sequences.push_back(planned.sequence);
  }
  requests.sampled = requests.rows.size();
  for (const planned_rows& planned : plan.sequences) add_scored(requests, planned);
  if (open.empty()) return requests;
  TROUPE_CHECK(following != nullptr);
  TROUPE_TRY(changes, following());
  if (changes.size() != open.size()) {
    return base::fail(base::error_code::invalid_argument, "engine",
                      "changes of " + std::to_string(changes.size()) + " rows came, " +
                          std::to_string(open.size()) + " wait for theirs");
  }
  for (std::size_t i = 0; i < open.size(); ++i) {
    auto own = std::make_unique<sample_request>(*requests.rows[open[i]].how);
    own->changes = std::move(changes[i]);
    requests.rows[open[i]].how = own.get();
    requests.made.push_back(std::move(own));
  }
  return requests;
}

}  // namespace

rank_worker::rank_worker(rank_worker_options options)
    : options_(std::move(options)),
      vocabulary_(models::vocabulary_grid(options_.config)
                      .rank_range(options_.where.tp_rank, options_.where.tp_size)),
      vocabulary_run_ends_(models::vocabulary_grid(options_.config)
                               .rank_run_ends(options_.where.tp_rank, options_.where.tp_size)),
      logits_rows_(std::clamp<std::int64_t>(logits_limit(options_.device != nullptr) /
                                                std::max<std::int64_t>(1, vocabulary_.size() * 4),
                                            1, options_.max_num_seqs)),
      pool_({.threads = options_.threads, .vitals = options_.vitals}) {}

std::size_t scratch_bytes(const models::model& of, const rank_scratch& rank) {
  using kernels::arena;
  const std::int64_t vocabulary = models::vocabulary_grid(rank.config)
                                      .rank_range(rank.where.tp_rank, rank.where.tp_size)
                                      .size();
  const std::int64_t hidden = rank.config.hidden_size;
  // Every row of a step may be scored.
  const std::int64_t rows = std::max(rank.max_num_seqs, rank.max_num_batched_tokens);
  const std::size_t step = of.arena_bytes(rank.max_num_batched_tokens) +
                           arena::bytes_of(rank.type, rows, hidden) +
                           arena::bytes_of(kernels::dtype::float32, rows, hidden);
  const auto logits = static_cast<std::size_t>(std::max(
      std::min(logits_limit(rank.on_device), rank.max_num_seqs * vocabulary * 4), vocabulary * 4));
  // Each view may round up to the arena's alignment; a step has far fewer views at once than this.
  return step + logits + 16 * arena::alignment_bytes;
}

base::result<std::unique_ptr<rank_worker>> rank_worker::load(rank_worker_options options) {
  std::unique_ptr<rank_worker> worker(new rank_worker(std::move(options)));
  kernels::device* const device = worker->options_.device;
  if (device == nullptr) {
    TROUPE_TRY(ops, kernels::make_cpu_ops(worker->options_.profile.path));
    worker->ops_ = std::move(ops);
    worker->queue_ = std::make_unique<kernels::cpu_queue>(worker->pool_);
  } else {
    TROUPE_TRY(queue, device->make_queue());
    worker->queue_ = std::move(queue);
    worker->ops_ = device->make_ops();
  }
  TROUPE_TRY_VOID(worker->load_weights());
  TROUPE_TRY_VOID(worker->reserve_memory());
  return worker;
}

base::cpu_tells rank_worker::tells() const noexcept {
  return options_.device == nullptr ? base::cpu_tells::progress : base::cpu_tells::nothing;
}

base::result<void> rank_worker::load_weights() {
  const base::working working(options_.vitals, tells());
  models::weight_reader_options reading{.files = options_.files,
                                        .type = options_.profile.weights,
                                        .pool = &pool_,
                                        .on = options_.device,
                                        .plan_only = false,
                                        .round_to = options_.profile.kept,
                                        .progress = options_.progress,
                                        .vitals = options_.vitals};
  if (options_.digest != nullptr) {
    reading.after_part = [&](const models::matrix_part& part) {
      return options_.digest->packed(part.name, pool_);
    };
  }
  models::weight_reader reader(std::move(reading));
  TROUPE_TRY(model, models::load({reader, options_.config, options_.where}));
  model_ = std::move(model);
  weight_bytes_ = reader.bytes();
  why_dequantised_ = reader.why_dequantised();
  if (options_.digest != nullptr) {
    TROUPE_TRY_VOID(options_.digest->finish(pool_, [&](std::uint64_t hashed) {
      if (options_.progress) options_.progress(reader.bytes() + hashed);
    }));
  }
  return options_.device == nullptr ? base::result<void>{} : options_.device->settle();
}

base::result<void> rank_worker::reserve_memory() {
  angles_.emplace(model_->rotary());
  const bool alone = options_.where.tp_size == 1 && options_.where.pp_size == 1;
  if (queue_->can_record() && alone)
    recorder_.emplace(std::min(options_.max_num_seqs, logits_rows_));
  // More blocks than are planned with: the spare ones of step_inputs.
  TROUPE_TRY(cache, kv_cache::allocate(
                        {.config = options_.config,
                         .where = options_.where,
                         .type = options_.profile.kv_cache,
                         .blocks = options_.kv_blocks + spare_blocks::count(options_.max_num_seqs),
                         .on = options_.device}));
  cache_ = std::move(cache);
  const std::size_t bytes =
      scratch_bytes(*model_, {.config = options_.config,
                              .where = options_.where,
                              .type = options_.profile.weights,
                              .max_num_batched_tokens = options_.max_num_batched_tokens,
                              .max_num_seqs = options_.max_num_seqs,
                              .on_device = options_.device != nullptr});
  TROUPE_TRY(scratch, kernels::allocate_on(options_.device, bytes, "a step's scratch memory"));
  arena_ = kernels::arena(std::move(scratch));
  return {};
}

void rank_worker::join(transport::rank_groups groups, base::epoch_id epoch,
                       std::shared_ptr<const std::atomic<bool>> over) noexcept {
  leave();
  groups_ = std::move(groups);
  epoch_ = epoch;
  over_ = std::move(over);
}

base::result<void> rank_worker::form_device_groups() {
  if (options_.device == nullptr || device_pp_) return {};
  std::optional<base::waiting_scope> waits;
  if (options_.vitals != nullptr) waits.emplace(*options_.vitals);
  const auto form = [&](transport::collective& host, const char* name) {
    return form_device_group(host, {.on = *options_.device,
                                    .queue = *queue_,
                                    .epoch = epoch_,
                                    .choice = options_.collectives,
                                    .name = name,
                                    .over = over_.get(),
                                    .log = options_.log});
  };
  TROUPE_TRY(tp, form(*groups_.tp, "tensor-parallel"));
  device_tp_ = std::move(tp);
  TROUPE_TRY(pp, form(*groups_.pp, "pipeline"));
  device_pp_ = std::move(pp);
  return {};
}

void rank_worker::leave() noexcept {
  device_tp_.reset();
  device_pp_.reset();
  groups_ = {};
  epoch_ = {};
  last_tokens_.clear();
  over_ = nullptr;
}

void rank_worker::abort() noexcept {
  if (device_tp_) device_tp_->abort();
  if (device_pp_) device_pp_->abort();
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
  return check_slots(plan);
}

base::result<void> rank_worker::check_slots(const step_plan& plan) const {
  for (const planned_rows& rows : plan.sequences) {
    if (!rows.last_token_slot || *rows.last_token_slot < last_tokens_.size()) continue;
    return base::fail(base::error_code::invalid_argument, "engine",
                      "the plan begins with token " + std::to_string(*rows.last_token_slot) +
                          " of the step before, which had " + std::to_string(last_tokens_.size()));
  }
  return {};
}

void rank_worker::remember(const step_result& result) {
  last_tokens_.clear();
  for (const sampled_token& token : result.tokens) {
    // A draw that failed ends its sequence, but its place may be in the next plan already.
    const bool drawn = token.token_id >= 0 && token.token_id < options_.config.vocab_size;
    last_tokens_.push_back(drawn ? token.token_id : 0);
  }
}

base::result<step_result> rank_worker::run(const step_plan& plan, const changes_source& following) {
  TROUPE_TRY_VOID(check(plan));
  TROUPE_TRY_VOID(form_device_groups());
  const base::working working(options_.vitals, tells());
  const bool repeats = recorder_ && step_recorder::repeats(plan) &&
                       static_cast<std::int64_t>(plan.sequences.size()) <= logits_rows_;
  step_shape shape = step_shape::of(plan, models::kv_groups(options_.config).size());
  if (repeats) shape = recorder_->rounded(shape);
  TROUPE_TRY(memory, queue_->begin_step(step_inputs::bytes(shape, angles_->half())));
  const step_inputs inputs(
      plan, last_tokens_, shape, *angles_, memory,
      {.first = static_cast<std::int32_t>(options_.kv_blocks), .pads = repeats});
  queue_->commit_step(inputs.sequences());
  const bool device = options_.device != nullptr;
  models::step_context context{.ops = *ops_,
                               .queue = *queue_,
                               .arena = arena_,
                               .tp = device ? *device_tp_ : *groups_.tp,
                               .pp = device ? *device_pp_ : *groups_.pp,
                               .epoch = plan.epoch,
                               .caches = cache_.layers(),
                               .vitals = options_.vitals};
  const kernels::arena::scope scope(arena_);
  if (!options_.where.last_stage()) {
    TROUPE_TRY_VOID(model_->forward(context, inputs.batch(), {}));
    TROUPE_TRY_VOID(requests_of(plan, following));  // all ranks take part in what is handed out
    return step_result{};
  }
  return run_last_stage(context, plan, following, inputs, repeats);
}

base::result<step_result> rank_worker::run_last_stage(models::step_context& context,
                                                      const step_plan& plan,
                                                      const changes_source& following,
                                                      const step_inputs& inputs, bool repeats) {
  int candidates = 0;
  for (const planned_rows& planned : plan.sequences) {
    if (planned.sample) candidates = std::max(candidates, candidates_for(*planned.sample));
    if (!planned.scored) continue;
    const sample_request scored{.row = {}, .logprobs = planned.scored->logprobs};
    candidates = std::max(candidates, candidates_for(scored));
  }
  if (recorder_) candidates = step_recorder::rounded_candidates(candidates);
  TROUPE_TRY(prepared, prepare_drawing(inputs, candidates));
  const auto slice = static_cast<std::size_t>(logits_rows_);
  const std::size_t all = prepared.sampling.size();
  const auto first_slice = [&]() -> base::result<void> {
    TROUPE_TRY_VOID(model_->forward(context, inputs.batch(), prepared.hidden));
    if (all > 0) project(context, prepared, 0, std::min(slice, all));
    return {};
  };
  if (repeats) {
    const std::uint64_t before = recorder_->replays();
    TROUPE_TRY_VOID(
        recorder_->run({.shape = inputs.shape(), .candidates = candidates}, *queue_, first_slice));
    count_idle(recorder_->replays() > before);
  } else {
    TROUPE_TRY_VOID(first_slice());
    count_idle(false);
  }
  TROUPE_TRY(requests, requests_of(plan, following));
  step_result result;
  for (std::size_t begin = 0; begin < requests.rows.size(); begin += slice) {
    const std::size_t count = std::min(slice, all - begin);
    if (begin > 0) project(context, prepared, begin, count);
    const auto drawn = std::span<const wanted_token>(requests.rows)
                           .subspan(begin, std::min(slice, requests.rows.size() - begin));
    TROUPE_TRY_VOID(draw(prepared, drawn, count, result));
  }
  for (std::size_t i = 0; i < requests.rows.size(); ++i) {
    result.tokens[i].sequence = requests.sequences[i];
  }
  const auto scored = result.tokens.begin() + static_cast<std::ptrdiff_t>(requests.sampled);
  result.scored.assign(std::make_move_iterator(scored),
                       std::make_move_iterator(result.tokens.end()));
  result.tokens.erase(scored, result.tokens.end());
  if (requests.rows.empty()) TROUPE_TRY_VOID(queue_->synchronize());
  if (options_.vitals != nullptr) options_.vitals->tick();
  return result;
}

void rank_worker::count_idle(bool replayed) noexcept {
  if (replayed && drained_) {
    ++idle_.steps;
    idle_.total += std::chrono::steady_clock::now() - *drained_;
  }
  drained_.reset();
}

base::result<rank_worker::drawing> rank_worker::prepare_drawing(const step_inputs& inputs,
                                                                int candidates) {
  drawing made;
  made.sampling = inputs.sampling();
  made.candidates = candidates;
  const auto rows = static_cast<std::int64_t>(made.sampling.size());
  const std::int64_t slice = std::min(rows, logits_rows_);
  made.hidden = arena_.take(options_.profile.weights, rows, options_.config.hidden_size);
  made.logits = arena_.take(kernels::dtype::float32, slice, vocabulary_.size());
  const std::size_t summaries = static_cast<std::size_t>(slice) * vocabulary_run_ends_.size();
  const std::size_t top = summaries * static_cast<std::size_t>(candidates);
  const std::size_t summary_bytes = summaries * sizeof(kernels::run_summary);
  static_assert(sizeof(kernels::run_summary) % alignof(kernels::token_candidate) == 0);
  TROUPE_TRY(memory, queue_->result_memory(summary_bytes + top * sizeof(kernels::token_candidate)));
  made.summaries = {reinterpret_cast<kernels::run_summary*>(memory.data()), summaries};
  made.top = {reinterpret_cast<kernels::token_candidate*>(memory.data() + summary_bytes), top};
  return made;
}

void rank_worker::project(models::step_context& context, const drawing& of, std::size_t begin,
                          std::size_t rows) {
  const auto count = static_cast<std::int64_t>(rows);
  const kernels::tensor_view logits = kernels::row_slice(of.logits, 0, count);
  model_->logits(context, kernels::row_slice(of.hidden, static_cast<std::int64_t>(begin), count),
                 logits);
  const std::size_t summaries = rows * vocabulary_run_ends_.size();
  ops_->summarise_vocabulary(
      *queue_, {logits, vocabulary_run_ends_, vocabulary_.begin, of.sampling.subspan(begin, rows),
                of.candidates, of.summaries.first(summaries),
                of.top.first(summaries * static_cast<std::size_t>(of.candidates))});
}

base::result<void> rank_worker::draw(const drawing& of, std::span<const wanted_token> wanted,
                                     std::size_t slice_rows, step_result& result) {
  TROUPE_TRY_VOID(queue_->synchronize());
  drained_ = std::chrono::steady_clock::now();
  token_drawer drawer({.tp = *groups_.tp,
                       .epoch = epoch_,
                       .queue = *queue_,
                       .pool = pool_,
                       .config = options_.config,
                       .where = options_.where});
  const std::size_t summaries = slice_rows * vocabulary_run_ends_.size();
  TROUPE_TRY(tokens,
             drawer.draw({.logits = of.logits,
                          .rows = slice_rows,
                          .candidates = of.candidates,
                          .summaries = of.summaries.first(summaries),
                          .top = of.top.first(summaries * static_cast<std::size_t>(of.candidates))},
                         wanted));
  std::move(tokens.begin(), tokens.end(), std::back_inserter(result.tokens));
  return {};
}

}  // namespace troupe::engine
