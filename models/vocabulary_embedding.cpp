#include "models/vocabulary_embedding.hpp"

#include <vector>

namespace troupe::models {

base::result<vocabulary_embedding> vocabulary_embedding::load(weight_reader& reader,
                                                              const model_config& config,
                                                              placement where, std::string name) {
  vocabulary_embedding made;
  made.cut_ = vocabulary_grid(config);
  made.where_ = where;
  made.mine_ = made.cut_.rank_range(where.tp_rank, where.tp_size);
  TROUPE_TRY(table, reader.matrix({{std::move(name),
                                    made.mine_,
                                    {0, config.hidden_size},
                                    config.vocab_size,
                                    config.hidden_size}},
                                  {config.hidden_size}));
  made.table_ = std::move(table);
  return made;
}

int vocabulary_embedding::owner_of(std::int32_t token_id) const noexcept {
  for (int rank = 0; rank < where_.tp_size; ++rank) {
    if (cut_.rank_range(rank, where_.tp_size).contains(token_id)) return rank;
  }
  TROUPE_CHECK(!"token ids are checked against the vocabulary before a step is planned");
  return 0;
}

base::result<void> vocabulary_embedding::embed(step_context& context,
                                               std::span<const std::int32_t> token_ids,
                                               const kernels::tensor_view& x) const {
  if (where_.tp_size == 1) {
    context.ops.embed(context.queue, {&table_, token_ids, x});
    return {};
  }
  const kernels::arena::scope scope(context.arena);
  const auto ranks = static_cast<std::size_t>(where_.tp_size);
  const std::size_t row_bytes = static_cast<std::size_t>(x.columns()) * sizeof(float);
  std::vector<std::size_t> counts(ranks, 0);
  std::vector<int> owners;
  std::vector<std::int32_t> local_ids;
  for (const std::int32_t id : token_ids) {
    owners.push_back(owner_of(id));
    counts[static_cast<std::size_t>(owners.back())] += row_bytes;
    if (owners.back() == where_.tp_rank) {
      local_ids.push_back(id - static_cast<std::int32_t>(mine_.begin));
    }
  }
  const auto local_rows = static_cast<std::int64_t>(local_ids.size());
  const auto own = context.arena.take(kernels::dtype::float32, local_rows, x.columns());
  const auto all = context.arena.take(kernels::dtype::float32, x.rows(), x.columns());
  context.ops.embed(context.queue, {&table_, local_ids, own});
  context.queue.hand_over();
  TROUPE_TRY_VOID(context.tp.all_gather_v(context.epoch,
                                          {own.data.address, local_ids.size() * row_bytes}, counts,
                                          {all.data.address, token_ids.size() * row_bytes}));

  std::vector<std::int32_t> next(ranks, 0);  // where each owner's next row lies
  for (std::size_t rank = 1; rank < ranks; ++rank) {
    next[rank] = next[rank - 1] + static_cast<std::int32_t>(counts[rank - 1] / row_bytes);
  }
  std::vector<std::int32_t> row_of_token;
  for (const int owner : owners) row_of_token.push_back(next[static_cast<std::size_t>(owner)]++);
  context.ops.gather_rows(context.queue, {all, row_of_token, x});
  return {};
}

void vocabulary_embedding::project(step_context& context, const kernels::tensor_view& hidden,
                                   const kernels::tensor_view& logits) const {
  context.ops.matmul(context.queue, {hidden, &table_, {}, logits});
}

}  // namespace troupe::models
