#include "kernels/matmul/wgmma_plan.cuh"

namespace troupe::kernels::cuda {
namespace {

// Bytes that the busiest multiprocessor moves, each item counted with what it takes beside.
double busiest_bytes(const matmul_weights& weights, int rows, const planned& of) {
  const bool float8 = weights.type == weight_type::float8_e4m3;
  const int groups = groups_for(tokens_for(rows));
  const int slots = of.residents * multiprocessors();
  const int items = of.plan.items();
  const int each = items >= slots ? (items + slots - 1) / slots * of.residents
                                  : (items + multiprocessors() - 1) / multiprocessors();
  const double inputs = static_cast<double>(weights.padded_inputs) / of.plan.parts;
  const double outputs = groups * of.plan.group_outputs;
  constexpr double beside = 8192.0;
  const double kept = of.plan.parts > 1 ? 2.0 * 4.0 * outputs * rows : 0.0;
  return each * (inputs * (outputs * (float8 ? 1 : 2) + rows * 2.0) + kept + beside);
}

std::size_t partial_bytes(const matmul_weights& weights, int rows) {
  const few_rows_plan plan = plan_for(weights, rows).plan;
  if (plan.parts == 1) return 0;
  const int tokens = tokens_for(rows);
  return static_cast<std::size_t>(plan.items() * groups_for(tokens)) * 64 *
         static_cast<std::size_t>(tokens) * sizeof(float);
}

}  // namespace

planned plan_for(const matmul_weights& weights, int rows) {
  const int tokens = tokens_for(rows);
  const int groups = groups_for(tokens);
  planned best;
  double least = -1.0;
  // Float8 weights are converted between products: more CTAs have more to do meanwhile.
  const bool float8 = weights.type == weight_type::float8_e4m3;
  for (const int residents : {float8 ? 4 : 2, 3}) {
    for (const int outputs : {64, 48, 32}) {
      for (const int runs : {1, 2}) {
        if (runs > min(weights.runs, item_runs_max(tokens))) continue;
        const int of_tile = outputs * groups;
        const planned made{
            .plan = {.group_outputs = outputs,
                     .item_runs = runs,
                     .tiles = static_cast<int>((weights.outputs + of_tile - 1) / of_tile),
                     .parts = weights.runs / runs},
            .residents = groups == 2 ? 1 : residents};
        const double bytes = busiest_bytes(weights, rows, made);
        if (least >= 0.0 && bytes >= least) continue;
        least = bytes;
        best = made;
      }
    }
  }
  return best;
}

std::size_t wgmma_partial_bytes(const matmul_weights& weights, std::int64_t rows) {
  if (weights.runs == 1) return 0;
  // Of the most rows at a time, and of the rest.
  std::size_t most = 0;
  for (const std::int64_t left :
       {min(rows, std::int64_t{wgmma_few_rows_max}), rows % wgmma_few_rows_max}) {
    if (left > 0) most = max(most, partial_bytes(weights, static_cast<int>(left)));
  }
  return most;
}

}  // namespace troupe::kernels::cuda
