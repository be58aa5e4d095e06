#include "cli/bench_figures.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace troupe::cli {

namespace {

// Without what scales take, but for int4's.
double layer_weight_bytes(const kernels::numerics_profile& profile) {
  switch (profile.kept) {
    case kernels::quantisation::float8_blocks:
    case kernels::quantisation::int8_runs:
      return 1.0;
    case kernels::quantisation::int4_groups:
      return 0.5625;  // 4 bits, and 16 for each group of 32
    case kernels::quantisation::none:
      break;
  }
  return static_cast<double>(size_of(profile.weights));
}

}  // namespace

work_model::work_model(const models::model_config& config, const kernels::numerics_profile& profile)
    : bytes_per_layer_weight_(layer_weight_bytes(profile)),
      bytes_per_output_weight_(
          is_integer(profile.kept) ? 1.0 : static_cast<double>(size_of(profile.weights))),
      bytes_per_kv_element_(static_cast<double>(size_of(profile.kv_cache))) {
  for (const auto& window : config.sliding_window) windows_.push_back(window.value_or(0));
  const auto layers = static_cast<double>(config.num_hidden_layers);
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto head_dim = static_cast<double>(config.head_dim);
  query_elements_ = static_cast<double>(config.num_attention_heads) * head_dim;
  kv_elements_ = 2.0 * static_cast<double>(config.num_key_value_heads) * head_dim;
  const double attention = hidden * (2.0 * query_elements_ + kv_elements_);
  const double mlp = 3.0 * hidden * static_cast<double>(config.intermediate_size);
  layer_weights_ = layers * (attention + mlp);
  output_weights_ = static_cast<double>(config.vocab_size) * hidden;
}

double work_model::seen(std::int64_t tokens) const {
  double positions = 0.0;
  for (const std::int64_t window : windows_) {
    const std::int64_t full = window == 0 ? tokens : std::min(tokens, window);
    positions += static_cast<double>(full) * static_cast<double>(full + 1) / 2.0 +
                 static_cast<double>(tokens - full) * static_cast<double>(full);
  }
  return positions;
}

double work_model::prefill_flop(std::int64_t tokens) const {
  return 2.0 * layer_weights_ * static_cast<double>(tokens) + 2.0 * output_weights_ +
         4.0 * query_elements_ * seen(tokens);
}

double work_model::visible(std::int64_t context) const {
  double positions = 0.0;
  for (const std::int64_t window : windows_) {
    positions += static_cast<double>(window == 0 ? context : std::min(context, window));
  }
  return positions;
}

double work_model::decode_bytes(std::int64_t context, std::int64_t sequences) const {
  return layer_weights_ * bytes_per_layer_weight_ + output_weights_ * bytes_per_output_weight_ +
         visible(context) * static_cast<double>(sequences) * kv_elements_ * bytes_per_kv_element_;
}

double work_model::decode_flop(std::int64_t context, std::int64_t sequences) const {
  return static_cast<double>(sequences) *
         (2.0 * layer_weights_ + 2.0 * output_weights_ + 4.0 * query_elements_ * visible(context));
}

spread spread_of(std::vector<double> values) {
  TROUPE_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2.0;
  return {median, values.front(), values.back()};
}

}  // namespace troupe::cli
