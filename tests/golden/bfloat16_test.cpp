// bfloat16 against Hugging Face's float32: within what the roundings explain, and closer to it than
// Hugging Face's own bfloat16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/numerics.hpp"
#include "tests/golden/forced_run.hpp"

namespace troupe::golden {
namespace {

// How far a logprob may be from float32's, from the roundings to bfloat16 on a token's way.
//
// Rounding to 8 significant bits is off by at most 2^-8 of the value, and by 2^-9.2 in the root
// mean square over significands: 2^-9 is taken for each. The residual stream and all sums are
// float32, so a layer rounds only what its products read:
//   normed input, q, k, v as read, the softmax's weights, the mixed heads, normed input of the MLP,
//   the gated product: 8
// and the model once more, at the final norm. Weights stored in another type are rounded too: seven
// matrices a layer, both embeddings. Such a rounding moves the result of its product, a sum of many
// independent terms, by the same share of its size; further on the shares add up. Taken as adding
// up linearly (in truth they add in squares, and the square root of 17 to 60 roundings is the room
// left for layers that amplify and for the largest of many tokens) they move a logit by roundings *
// 2^-9 of the logits' scale, and a logprob, the difference of a logit and a mean of logits, by no
// more than that once again.
double logprob_bound(const golden_case& of, const models::model_config& config,
                     bool exact_weights) {
  const auto layers = static_cast<double>(config.num_hidden_layers);
  const double roundings = 8 * layers + 1 + (exact_weights ? 0 : 7 * layers + 2);
  return roundings * 0x1p-9 * of.logit_scale;
}

struct error_sums {
  double largest = 0.0;
  double squares = 0.0;
  std::size_t count = 0;

  void add(double difference) {
    largest = std::max(largest, std::abs(difference));
    squares += difference * difference;
    ++count;
  }
  [[nodiscard]] double rms() const { return std::sqrt(squares / static_cast<double>(count)); }
};

class GoldenBfloat16 : public testing::TestWithParam<std::string> {
 protected:
  golden_case case_ = read_case(GetParam());
  loaded_model model_{case_.folder};
};

bool stored_as_bfloat16(const models::checkpoint& files) {
  return std::all_of(files.tensors().begin(), files.tensors().end(), [](const auto& tensor) {
    return tensor.dtype == models::stored_dtype::bfloat16;
  });
}

TEST_P(GoldenBfloat16, LogprobsStayWithinTheRoundingsAndNearerThanHuggingFaces) {
  const double bound = logprob_bound(case_, model_.config(), stored_as_bfloat16(model_.files()));
  error_sums reference;
  for (const golden_prompt& prompt : case_.prompts) {
    for (std::size_t i = 0; i < prompt.token_ids.size(); ++i) {
      reference.add(prompt.bfloat16_logprobs[i] - prompt.logprobs[i]);
    }
  }
  for (const kernels::instruction_path path : kernels::supported_paths(kernels::dtype::bfloat16)) {
    SCOPED_TRACE(kernels::to_string(path));
    const auto ranks = model_.start(profile_of(path, kernels::dtype::bfloat16));
    error_sums own;
    for (const golden_prompt& prompt : case_.prompts) {
      const distributions found =
          forced_run(*ranks, model_.config(), prompt.prompt_ids, prompt.token_ids);
      for (std::size_t step = 0; step < found.size(); ++step) {
        const auto token = static_cast<std::size_t>(prompt.token_ids[step]);
        own.add(static_cast<double>(found[step][token]) - prompt.logprobs[step]);
      }
    }
    EXPECT_LE(own.largest, bound);
    EXPECT_LE(own.rms(), reference.rms());
    EXPECT_GT(own.rms(), 0.0) << "nothing was rounded: this was not bfloat16";
    RecordProperty(std::string(kernels::to_string(path)) + "_rms_share",
                   std::to_string(own.rms() / reference.rms()));
    RecordProperty(std::string(kernels::to_string(path)) + "_largest_share",
                   std::to_string(own.largest / bound));
  }
}

// The yardstick for all tokens of the vocabulary, not only the chosen ones. Hugging Face's figure
// is of logits; logprobs differ from them by one number a step, whose best choice is their mean
// difference: what is left is at most the logits' own error.
TEST_P(GoldenBfloat16, TheWholeDistributionIsNearerThanHuggingFaces) {
  const auto exact = model_.start(profile_of(
      kernels::supported_paths(kernels::dtype::float32).front(), kernels::dtype::float32));
  for (const kernels::instruction_path path : kernels::supported_paths(kernels::dtype::bfloat16)) {
    SCOPED_TRACE(kernels::to_string(path));
    const auto ranks = model_.start(profile_of(path, kernels::dtype::bfloat16));
    double squares = 0.0;
    double reference_squares = 0.0;
    for (const golden_prompt& prompt : case_.prompts) {
      const auto& config = model_.config();
      const distributions found = forced_run(*ranks, config, prompt.prompt_ids, prompt.token_ids);
      const distributions wanted = forced_run(*exact, config, prompt.prompt_ids, prompt.token_ids);
      error_sums all;
      for (std::size_t step = 0; step < found.size(); ++step) {
        double mean = 0.0;
        for (std::size_t id = 0; id < found[step].size(); ++id) {
          mean += static_cast<double>(found[step][id]) - static_cast<double>(wanted[step][id]);
        }
        mean /= static_cast<double>(found[step].size());
        for (std::size_t id = 0; id < found[step].size(); ++id) {
          all.add(static_cast<double>(found[step][id]) - static_cast<double>(wanted[step][id]) -
                  mean);
        }
      }
      squares += all.squares / static_cast<double>(all.count);
      reference_squares += prompt.bfloat16_logit_error_rms * prompt.bfloat16_logit_error_rms;
    }
    EXPECT_LE(std::sqrt(squares), std::sqrt(reference_squares));
    RecordProperty(std::string(kernels::to_string(path)) + "_rms_share",
                   std::to_string(std::sqrt(squares / reference_squares)));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenBfloat16, testing::ValuesIn(case_names()),
                         [](const auto& of) { return of.param; });

}  // namespace
}  // namespace troupe::golden
