#include "cli/layout_report.hpp"

#include "engine/kv_cache.hpp"
#include "engine/rank_worker.hpp"
#include "models/registry.hpp"

namespace troupe::cli {

base::result<layout_report> report_layout(const opened_model& opened, const model_flags& flags,
                                          int tp_size, int pp_size) {
  layout_report layout{.tp_size = tp_size, .pp_size = pp_size, .ranks = {}, .refused = {}};
  const auto allowed =
      models::check_placement(opened.config, {.tp_size = tp_size, .pp_size = pp_size});
  if (!allowed) {
    layout.refused = allowed.error().message;
    return layout;
  }
  for (int rank = 0; rank < tp_size * pp_size; ++rank) {
    const models::placement where{.tp_rank = rank % tp_size,
                                  .tp_size = tp_size,
                                  .pp_rank = rank / tp_size,
                                  .pp_size = pp_size};
    models::weight_reader reader({.files = &opened.files,
                                  .type = opened.profile.weights,
                                  .pool = nullptr,
                                  .plan_only = true,
                                  .plan_for_device = opened.devices > 0,
                                  .round_to = opened.profile.kept,
                                  .progress = {}});
    TROUPE_TRY(planned, models::load({reader, opened.config, where}));
    const engine::rank_scratch scratch{.config = opened.config,
                                       .where = where,
                                       .type = opened.profile.weights,
                                       .max_num_batched_tokens = flags.max_num_batched_tokens,
                                       .max_num_seqs = flags.max_num_seqs};
    const std::int64_t block =
        engine::kv_cache::block_bytes(opened.config, where, opened.profile.kv_cache);
    layout.ranks.push_back({.weight_bytes = reader.bytes(),
                            .scratch_bytes = engine::scratch_bytes(*planned, scratch),
                            .kv_bytes_per_token = block / kernels::kv_block_tokens});
  }
  return layout;
}

}  // namespace troupe::cli
