#include "models/blocks/gated_mlp.hpp"

#include <numeric>

namespace troupe::models {
namespace {

kernels::gate_kind gate_of(activation act) {
  switch (act) {
    case activation::silu:
      return kernels::gate_kind::silu;
    case activation::gelu_tanh:
      return kernels::gate_kind::gelu_tanh;
    case activation::gelu:
      return kernels::gate_kind::gelu;
  }
  TROUPE_CHECK(!"an activation without a kernel");
  return kernels::gate_kind::silu;
}

}  // namespace

base::result<gated_mlp> gated_mlp::load(weight_reader& reader, const model_config& config,
                                        placement where, const std::string& prefix) {
  gated_mlp block;
  const grid cut = mlp_grid(config);
  const range mine = cut.rank_range(where.tp_rank, where.tp_size);
  const std::int64_t all = config.intermediate_size;
  const std::int64_t hidden = config.hidden_size;
  block.intermediate_ = mine.size();
  block.gate_ = gate_of(config.hidden_act);
  TROUPE_TRY(gate_up, reader.matrix({{prefix + "gate_proj.weight", mine, {0, hidden}, all, hidden},
                                     {prefix + "up_proj.weight", mine, {0, hidden}, all, hidden}},
                                    {hidden}, matrix_cuts{.output_unit = std::gcd(mlp_unit, all)}));
  TROUPE_TRY(down, reader.matrix({{prefix + "down_proj.weight", {0, hidden}, mine, hidden, all}},
                                 cut.rank_run_ends(where.tp_rank, where.tp_size),
                                 matrix_cuts{.inputs = cut}));
  block.gate_up_ = std::move(gate_up);
  block.down_ = std::move(down);
  if (config.mlp_bias) {
    TROUPE_TRY(gate_up_bias, reader.vector({{prefix + "gate_proj.bias", mine, all},
                                            {prefix + "up_proj.bias", mine, all}}));
    TROUPE_TRY(down_bias, reader.vector({{prefix + "down_proj.bias", {0, hidden}, hidden}}));
    block.gate_up_bias_ = std::move(gate_up_bias);
    block.down_bias_ = std::move(down_bias);
  }
  return block;
}

void gated_mlp::forward(step_context& context, const kernels::tensor_view& normed,
                        const kernels::tensor_view& partial) const {
  const kernels::arena::scope scope(context.arena);
  const kernels::tensor_view gate_up =
      context.arena.take(kernels::dtype::float32, normed.rows(), 2 * intermediate_);
  const kernels::tensor_view gated = context.arena.take(down_.type(), normed.rows(), intermediate_);
  context.ops.matmul(context.queue, {normed, &gate_up_, gate_up_bias_, gate_up});
  context.ops.gated_activation(
      context.queue, {kernels::column_slice(gate_up, 0, intermediate_),
                      kernels::column_slice(gate_up, intermediate_, intermediate_), gate_, gated});
  context.ops.matmul(context.queue, {gated, &down_, {}, partial});
}

std::size_t gated_mlp::arena_bytes(const model_config& config, placement where, kernels::dtype type,
                                   std::int64_t tokens) {
  const std::int64_t mine = mlp_grid(config).rank_range(where.tp_rank, where.tp_size).size();
  return kernels::arena::bytes_of(kernels::dtype::float32, tokens, 2 * mine) +
         kernels::arena::bytes_of(type, tokens, mine);
}

}  // namespace troupe::models
