// Summaries and candidates of the vocabulary on CUDA against the CPU's reference.
#include "tests/kernels/vocabulary_case.hpp"

#include "tests/cuda/cuda_case.hpp"

namespace troupe::kernels {
namespace {

using vector_testing::generator;
using vector_testing::vocabulary_case;
using vector_testing::vocabulary_result;

class CudaVocabulary : public cuda_testing::cuda_test {
 protected:
  vocabulary_result summarise(vocabulary_case& of) {
    vocabulary_result result = of.empty_result();
    summarise_vocabulary_args args = of.args(result);
    args.logits = put(args.logits);
    run().summarise_vocabulary(here(), args);
    EXPECT_TRUE(here().synchronize().has_value());
    return result;
  }
};

void fill(vocabulary_case& of, std::uint64_t seed, double step = 0.0) {
  generator random(seed);
  const tensor_view logits = of.logits.view();
  for (std::int64_t row = 0; row < logits.rows(); ++row) {
    for (std::int64_t i = 0; i < logits.columns(); ++i) {
      double value = 4 * random.normal();
      if (step > 0) value = std::round(value / step) * step;
      logits.row<float>(row)[i] = static_cast<float>(value);
    }
  }
}

void expect_like_reference(vocabulary_case& of, const vocabulary_result& got) {
  const vocabulary_result want = of.reference();
  for (std::size_t i = 0; i < of.places(); ++i) {
    SCOPED_TRACE("place " + std::to_string(i));
    const run_summary& a = got.summaries[i];
    const run_summary& b = want.summaries[i];
    ASSERT_EQ(a.finite, b.finite);
    if (!b.finite) continue;
    EXPECT_EQ(a.maximum, b.maximum);
    // A sum of n positive terms errs by an ulp an addition and two an exponential; joins add few.
    const double tokens = static_cast<double>(of.run_ends.back());
    const double share = (tokens / 16 + 32) * 0x1p-23;
    EXPECT_NEAR(a.sum_exp, b.sum_exp, b.sum_exp * share);
    EXPECT_NEAR(a.sum_exp_tempered, b.sum_exp_tempered, b.sum_exp_tempered * share);
    EXPECT_EQ(a.noise_best.token_id, b.noise_best.token_id);
    EXPECT_EQ(a.noise_best.logit, b.noise_best.logit);
    EXPECT_EQ(a.noise_best_score, b.noise_best_score);
  }
  for (std::size_t i = 0; i < got.top.size(); ++i) {
    ASSERT_EQ(got.top[i].token_id, want.top[i].token_id) << "candidate " << i;
    if (want.top[i].token_id >= 0) {
      ASSERT_EQ(got.top[i].logit, want.top[i].logit) << "candidate " << i;
    }
  }
}

TEST_F(CudaVocabulary, HasTheReferencesMaximaNoiseAndCandidates) {
  std::uint64_t seed = 1;
  for (const int candidates : {0, 1, 7, 64, 1024}) {
    for (const auto& ends : std::vector<std::vector<std::int64_t>>{
             {1}, {500}, {4096}, {4097}, {20'000}, {0, 64, 64, 192, 5000, 5064, 9000, 9001}}) {
      for (const std::int64_t rows : {1, 5}) {
        vocabulary_case of(rows, ends, candidates);
        of.first_token_id = 17;
        if (rows > 2) of.sampling[2].temperature = 0.0F;
        fill(of, seed++);
        expect_like_reference(of, summarise(of));
      }
    }
  }
}

TEST_F(CudaVocabulary, TiesGoToTheLowerId) {
  for (const int candidates : {5, 300}) {
    vocabulary_case of(3, {3000, 10'000}, candidates);
    for (sampling_row& row : of.sampling) row.temperature = 0.0F;
    fill(of, 7, 2.0);  // a dozen different values
    expect_like_reference(of, summarise(of));
  }
}

TEST_F(CudaVocabulary, LogitsThatAreNoNumbersAreFound) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    vocabulary_case of(2, {5000, 9000}, 4);
    fill(of, 8);
    of.logits.view().row<float>(1)[8999] = bad;
    const vocabulary_result got = summarise(of);
    EXPECT_TRUE(got.summaries[2].finite);
    EXPECT_FALSE(got.summaries[3].finite);
    for (std::size_t i = 12; i < 16; ++i) EXPECT_EQ(got.top[i].token_id, -1);
  }
}

TEST_F(CudaVocabulary, ARowIsTheSameInEveryBatch) {
  vocabulary_case of(40, {6000, 20'000}, 16);
  fill(of, 9);
  const vocabulary_result all = summarise(of);
  const vocabulary_result again = summarise(of);
  EXPECT_EQ(std::memcmp(all.summaries.data(), again.summaries.data(),
                        all.summaries.size() * sizeof(run_summary)),
            0);
  vocabulary_case one(1, {6000, 20'000}, 16);
  std::memcpy(one.logits.view().row<float>(0), of.logits.view().row<float>(23), 20'000 * 4);
  one.sampling[0] = of.sampling[23];
  const vocabulary_result alone = summarise(one);
  for (std::size_t run = 0; run < 2; ++run) {
    EXPECT_EQ(alone.summaries[run].sum_exp, all.summaries[46 + run].sum_exp);
    EXPECT_EQ(alone.summaries[run].sum_exp_tempered, all.summaries[46 + run].sum_exp_tempered);
    EXPECT_EQ(alone.summaries[run].noise_best_score, all.summaries[46 + run].noise_best_score);
  }
}

}  // namespace
}  // namespace troupe::kernels
