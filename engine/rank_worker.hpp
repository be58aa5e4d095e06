// One rank: its shard of the model, its cache, its threads, its place in the groups.
//
// Carries out step plans exactly as they say; decides nothing. All ranks run the same plan at the
// same time and meet in the collectives. Loaded once; joins the groups of one epoch after the other
// with the weights it has. Used by one thread.
//
//   TROUPE_TRY(worker, engine::rank_worker::load(std::move(options)));
//   worker->join(std::move(groups), epoch);
//   TROUPE_TRY(result, worker->run(plan));   // tokens on the last stage, empty elsewhere
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/vitals.hpp"
#include "engine/angle_table.hpp"
#include "engine/collectives_path.hpp"
#include "engine/executor.hpp"
#include "engine/kv_cache.hpp"
#include "engine/step_inputs.hpp"
#include "engine/step_plan.hpp"
#include "engine/step_recorder.hpp"
#include "engine/token_drawer.hpp"
#include "kernels/arena.hpp"
#include "kernels/cpu_ops.hpp"
#include "kernels/device.hpp"
#include "kernels/numerics.hpp"
#include "models/checkpoint.hpp"
#include "models/model.hpp"
#include "models/weight_digest.hpp"
#include "transport/groups.hpp"

namespace troupe::engine {

struct rank_worker_options {
  const models::checkpoint* files = nullptr;  // borrowed for load()
  models::model_config config;
  models::placement where;
  kernels::numerics_profile profile;
  kernels::device* device = nullptr;  // where to compute; null: the CPU. Borrowed
  device_collectives collectives = device_collectives::automatic;  // of a device's buffers
  int threads = 1;
  std::int64_t kv_blocks = 0;
  std::int64_t max_num_batched_tokens = 512;
  std::int64_t max_num_seqs = 16;
  std::function<void(std::uint64_t bytes)> progress;  // packed bytes so far
  base::rank_vitals* vitals = nullptr;            // borrowed; working and ticking in load(), run()
  models::weight_digest* digest = nullptr;        // borrowed for load(); finished by it
  std::function<void(const std::string&)> log{};  // which way a device's buffers take
};

// Logits are projected in slices of rows that keep to this, so that a large vocabulary and many
// sequences do not cost memory together. On a device one slice holds 256 rows of 256 Ki tokens:
// reading the output embedding again costs more than the memory.
inline constexpr std::int64_t logits_bytes_max = std::int64_t{32} << 20;
inline constexpr std::int64_t device_logits_bytes_max = std::int64_t{256} << 20;

// What decides a rank's scratch memory.
struct rank_scratch {
  const models::model_config& config;
  models::placement where;
  kernels::dtype type;
  std::int64_t max_num_batched_tokens = 0;
  std::int64_t max_num_seqs = 0;
  bool on_device = false;
};

// Units: bytes of scratch (arena and logits) that such a rank reserves; touched as needed.
[[nodiscard]] std::size_t scratch_bytes(const models::model& of, const rank_scratch& rank);

class rank_worker {
 public:
  // Errors: those of models::load, failed_precondition (instruction path), resource_exhausted.
  [[nodiscard]] static base::result<std::unique_ptr<rank_worker>> load(rank_worker_options options);
  ~rank_worker() { leave(); }

  // Takes its place in the groups of an epoch; those of the epoch before are destroyed. What the
  // cache holds is void: the sequences come again from their logs. `over`: set by any thread when
  // the epoch ends, for the waits that the groups' abort() does not reach (a device's).
  void join(transport::rank_groups groups, base::epoch_id epoch,
            std::shared_ptr<const std::atomic<bool>> over = nullptr) noexcept;
  // Gives the groups up, so that their data plane can be destroyed.
  void leave() noexcept;

  // `following` is asked where rows of the plan have changes_follow, on every stage.
  // Errors: aborted (epoch over, group aborted, no group joined), unavailable (a peer is gone),
  // unimplemented (the plan asks for adapters, row groups, drafts or another model),
  // invalid_argument (it names a slot that the step before does not have), those of `following`.
  [[nodiscard]] base::result<step_result> run(const step_plan& plan,
                                              const changes_source& following = {});

  // The tokens of the step that has ended, which the next plan may name by their slots.
  void remember(const step_result& result);

  // Ends every wait of this rank's groups, on all ranks. The thread that runs the plans.
  void abort() noexcept;

  [[nodiscard]] std::uint64_t weight_bytes() const noexcept { return weight_bytes_; }
  [[nodiscard]] device_idle idle() const noexcept { return idle_; }
  // weight_reader::why_dequantised().
  [[nodiscard]] const std::string& why_dequantised() const noexcept { return why_dequantised_; }

 private:
  explicit rank_worker(rank_worker_options options);
  [[nodiscard]] base::result<void> check(const step_plan& plan) const;
  [[nodiscard]] base::result<void> check_slots(const step_plan& plan) const;
  [[nodiscard]] base::cpu_tells tells() const noexcept;  // of this rank's thread
  // At an epoch's first step, where all ranks meet.
  [[nodiscard]] base::result<void> form_device_groups();
  [[nodiscard]] base::result<void> load_weights();
  [[nodiscard]] base::result<void> reserve_memory();
  // What a step leaves for the sampler: some rows of logits and what condenses them.
  struct drawing {
    kernels::tensor_view hidden;  // of all rows whose successor is wanted
    kernels::tensor_view logits;  // of one slice
    std::span<const kernels::sampling_row> sampling;
    int candidates = 0;
    std::span<kernels::run_summary> summaries;  // [slice][own runs]
    std::span<kernels::token_candidate> top;    // [slice][own runs][candidates]
  };
  [[nodiscard]] base::result<drawing> prepare_drawing(const step_inputs& inputs, int candidates);
  [[nodiscard]] base::result<step_result> run_last_stage(models::step_context& context,
                                                         const step_plan& plan,
                                                         const changes_source& following,
                                                         const step_inputs& inputs, bool repeats);
  // Enqueues logits and summaries of `rows` rows from `begin`.
  void project(models::step_context& context, const drawing& of, std::size_t begin,
               std::size_t rows);
  // The device has something to do again, by replay or step by step.
  void count_idle(bool replayed) noexcept;
  // Waits for a slice's summaries and draws from them.
  [[nodiscard]] base::result<void> draw(const drawing& of, std::span<const wanted_token> wanted,
                                        std::size_t slice_rows, step_result& result);
  rank_worker_options options_;
  transport::rank_groups groups_;
  std::unique_ptr<transport::collective> device_tp_;  // of groups_, for the device's buffers
  std::unique_ptr<transport::collective> device_pp_;
  base::epoch_id epoch_;
  std::vector<std::int32_t> last_tokens_;          // of the step before, by slot
  std::shared_ptr<const std::atomic<bool>> over_;  // the epoch is
  models::range vocabulary_;                       // this rank's
  std::vector<std::int64_t> vocabulary_run_ends_;
  std::int64_t logits_rows_ = 1;  // per slice
  kernels::thread_pool pool_;
  std::unique_ptr<kernels::queue> queue_;
  std::unique_ptr<kernels::ops> ops_;
  std::unique_ptr<models::model> model_;
  std::optional<angle_table> angles_;
  std::optional<step_recorder> recorder_;                         // where the queue can record
  std::optional<std::chrono::steady_clock::time_point> drained_;  // nothing has been enqueued since
  device_idle idle_;
  kv_cache cache_;
  kernels::arena arena_;
  std::uint64_t weight_bytes_ = 0;
  std::string why_dequantised_;
};

}  // namespace troupe::engine
