#include "kernels/attention/attention.hpp"
#include "kernels/bfloat16.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace troupe::kernels {
namespace {

double element(const device_handle& data, dtype type, std::int64_t index) {
  if (type == dtype::float32) return reinterpret_cast<const float*>(data.address)[index];
  return from_bfloat16(reinterpret_cast<const std::uint16_t*>(data.address)[index]);
}

struct reference_query {
  std::int64_t row = 0;
  std::int64_t head = 0;
  std::int64_t position = 0;
};

void attend(const attention_args& args, const sequence_rows& sequence,
            const reference_query& query) {
  const kv_view& cache = args.cache;
  const std::int64_t dim = cache.head_dim;
  const std::int64_t kv_head = args.kv_head_of[static_cast<std::size_t>(query.head)];
  const std::int64_t first =
      args.window.has_value() ? std::max<std::int64_t>(0, query.position - *args.window + 1) : 0;
  const float* q = args.query.row<const float>(query.row) + query.head * dim;
  const auto offset = [&](std::int64_t position) {
    const std::int64_t block =
        sequence.block_table[static_cast<std::size_t>(position / kv_block_tokens)];
    return ((kv_head * cache.blocks + block) * kv_block_tokens + position % kv_block_tokens) * dim;
  };

  std::vector<double> weights;
  double maximum = -std::numeric_limits<double>::infinity();
  for (std::int64_t position = first; position <= query.position; ++position) {
    double score = 0;
    for (std::int64_t d = 0; d < dim; ++d) {
      score += double{q[d]} * element(cache.keys, cache.type, offset(position) + d);
    }
    weights.push_back(score * double{args.scale});
    maximum = std::max(maximum, weights.back());
  }
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - maximum);
    sum += weight;
  }
  for (std::int64_t d = 0; d < dim; ++d) {
    double total = 0;
    for (std::int64_t position = first; position <= query.position; ++position) {
      total += weights[static_cast<std::size_t>(position - first)] *
               element(cache.values, cache.type, offset(position) + d);
    }
    const auto result = static_cast<float>(total / sum);
    const std::int64_t column = query.head * dim + d;
    if (args.output.type == dtype::float32) {
      args.output.row<float>(query.row)[column] = result;
    } else {
      args.output.row<std::uint16_t>(query.row)[column] = to_bfloat16(result);
    }
  }
}

}  // namespace

void attention_reference(const attention_args& args) {
  for (const sequence_rows& sequence : args.sequences) {
    for (std::int64_t row = 0; row < sequence.rows; ++row) {
      for (std::size_t head = 0; head < args.kv_head_of.size(); ++head) {
        attend(args, sequence,
               {.row = sequence.first_row + row,
                .head = static_cast<std::int64_t>(head),
                .position = sequence.first_position + row});
      }
    }
  }
}

}  // namespace troupe::kernels
