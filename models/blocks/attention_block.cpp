#include "models/blocks/attention_block.hpp"

#include <cmath>

namespace troupe::models {
namespace {

range scaled(range heads, std::int64_t head_dim) {
  return {heads.begin * head_dim, heads.end * head_dim};
}

}  // namespace

base::result<attention_block> attention_block::load(weight_reader& reader,
                                                    const model_config& config, placement where,
                                                    const std::string& prefix,
                                                    attention_options options) {
  attention_block block;
  const range query = head_grid(config).rank_range(where.tp_rank, where.tp_size);
  const range kv = rank_kv_heads(config, where);
  block.options_ = options;
  block.head_dim_ = config.head_dim;
  block.query_heads_ = query.size();
  block.kv_heads_ = kv.size();
  // Source: transformers, head_dim ** -0.5.
  block.scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  block.epsilon_ = static_cast<float>(config.rms_norm_eps);
  const std::int64_t group = config.num_attention_heads / config.num_key_value_heads;
  for (std::int64_t head = query.begin; head < query.end; ++head) {
    block.kv_head_of_.push_back(static_cast<std::int32_t>(head / group - kv.begin));
  }

  const range all_inputs{0, config.hidden_size};
  const range q = scaled(query, config.head_dim);
  const range k = scaled(kv, config.head_dim);
  const std::int64_t all_q = config.num_attention_heads * config.head_dim;
  const std::int64_t all_kv = config.num_key_value_heads * config.head_dim;
  const std::int64_t hidden = config.hidden_size;
  TROUPE_TRY(projection, reader.matrix({{prefix + "q_proj.weight", q, all_inputs, all_q, hidden},
                                        {prefix + "k_proj.weight", k, all_inputs, all_kv, hidden},
                                        {prefix + "v_proj.weight", k, all_inputs, all_kv, hidden}},
                                       {hidden}, matrix_cuts{.output_unit = config.head_dim}));
  block.projection_ = std::move(projection);
  if (config.qkv_bias) {
    TROUPE_TRY(bias, reader.vector({{prefix + "q_proj.bias", q, all_q},
                                    {prefix + "k_proj.bias", k, all_kv},
                                    {prefix + "v_proj.bias", k, all_kv}}));
    block.projection_bias_ = std::move(bias);
  }
  TROUPE_TRY(output,
             reader.matrix({{prefix + "o_proj.weight", {0, hidden}, q, hidden, all_q}},
                           rank_head_run_ends(config, where),
                           matrix_cuts{.inputs = {.size = all_q, .unit = config.head_dim}}));
  block.output_ = std::move(output);
  if (config.o_bias) {
    TROUPE_TRY(bias, reader.vector({{prefix + "o_proj.bias", {0, hidden}, hidden}}));
    block.output_bias_ = std::move(bias);
  }
  if (options.qk_norm) {
    const range whole{0, config.head_dim};
    TROUPE_TRY(query_norm, reader.vector({{prefix + "q_norm.weight", whole, config.head_dim}}));
    TROUPE_TRY(key_norm, reader.vector({{prefix + "k_norm.weight", whole, config.head_dim}}));
    block.query_norm_ = std::move(query_norm);
    block.key_norm_ = std::move(key_norm);
  }
  return block;
}

void attention_block::forward(step_context& context, const kernels::tensor_view& normed,
                              const rotation& rotate, const kernels::kv_view& cache,
                              const kv_group_batch& batch,
                              const kernels::tensor_view& partial) const {
  kernels::ops& ops = context.ops;
  kernels::queue& on = context.queue;
  const kernels::arena::scope scope(context.arena);
  const std::int64_t q_columns = query_heads_ * head_dim_;
  const std::int64_t kv_columns = kv_heads_ * head_dim_;

  const kernels::tensor_view projected =
      context.arena.take(kernels::dtype::float32, normed.rows(), q_columns + 2 * kv_columns);
  ops.matmul(on, {normed, &projection_, projection_bias_, projected});
  const auto heads = [&](std::int64_t begin, std::int64_t columns) {
    return kernels::as_heads(kernels::column_slice(projected, begin, columns), head_dim_);
  };
  const kernels::tensor_view query = heads(0, q_columns);
  const kernels::tensor_view keys = heads(q_columns, kv_columns);
  const kernels::tensor_view values = heads(q_columns + kv_columns, kv_columns);

  if (options_.qk_norm) {
    ops.rms_norm(on, {query, query_norm_, epsilon_, query});
    ops.rms_norm(on, {keys, key_norm_, epsilon_, keys});
  }
  ops.rotary(on, {query, rotate.cos, rotate.sin});
  ops.rotary(on, {keys, rotate.cos, rotate.sin});
  ops.write_kv(on, {keys, values, cache, batch.slots});

  const kernels::tensor_view mixed = context.arena.take(output_.type(), normed.rows(), q_columns);
  ops.attention(on, {query, cache, kv_head_of_, batch.sequences, scale_, options_.window,
                     kernels::as_heads(mixed, head_dim_)});
  ops.matmul(on, {mixed, &output_, {}, partial});
}

std::size_t attention_block::arena_bytes(const model_config& config, placement where,
                                         kernels::dtype type, std::int64_t tokens) {
  const std::int64_t q =
      head_grid(config).rank_range(where.tp_rank, where.tp_size).size() * config.head_dim;
  const std::int64_t kv = rank_kv_heads(config, where).size() * config.head_dim;
  return kernels::arena::bytes_of(kernels::dtype::float32, tokens, q + 2 * kv) +
         kernels::arena::bytes_of(type, tokens, q);
}

}  // namespace troupe::models
