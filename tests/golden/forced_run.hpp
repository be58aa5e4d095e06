// A model's whole distribution at every step while the tokens are given: teacher forcing.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "tests/golden/model_runs.hpp"

namespace troupe::golden {

// Log-probabilities of the whole vocabulary. Shape: [steps][vocab_size].
using distributions = std::vector<std::vector<float>>;

// Step plans by hand: the prompt at once, then one token a step on the cache, as the reference was
// made. Asking for as many logprobs as there are tokens gives all of them.
inline distributions forced_run(engine::executor& ranks, const models::model_config& config,
                                const std::vector<std::int32_t>& prompt_ids,
                                const std::vector<std::int32_t>& token_ids) {
  const auto blocks = static_cast<std::int32_t>((prompt_ids.size() + token_ids.size()) / 16 + 1);
  std::vector<std::int32_t> table;
  for (std::int32_t block = 0; block < blocks; ++block) table.push_back(block);
  distributions all;
  engine::planned_rows rows;
  rows.sequence = base::sequence_id{1};
  rows.prompt_length = static_cast<std::int64_t>(prompt_ids.size());
  rows.token_ids = prompt_ids;
  rows.block_tables.assign(models::kv_groups(config).size(), table);
  rows.sample =
      engine::sample_request{.row = {}, .logprobs = static_cast<std::int32_t>(config.vocab_size)};
  for (std::size_t step = 0; step < token_ids.size(); ++step) {
    const engine::step_plan plan{.epoch = ranks.epoch(), .step = step, .sequences = {rows}};
    const engine::step_result result = must(ranks.run(plan));
    std::vector<float> row(static_cast<std::size_t>(config.vocab_size));
    const auto& top = result.tokens.at(0).top;
    if (top.size() != row.size()) throw std::runtime_error("not every token has a logprob");
    for (const engine::token_logprob& token : top) {
      row.at(static_cast<std::size_t>(token.token_id)) = token.logprob;
    }
    all.push_back(std::move(row));
    rows.first_position += static_cast<std::int64_t>(rows.token_ids.size());
    rows.token_ids = {token_ids[step]};
  }
  return all;
}

}  // namespace troupe::golden
