// The same bits everywhere: token ids and the raw bits of every logprob do not depend on how the
// model is spread over ranks and threads, how a prompt is cut, or what else is in the batch.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "kernels/numerics.hpp"
#include "tests/golden/made_model.hpp"
#include "tests/golden/model_runs.hpp"

namespace troupe::golden {
namespace {

using kernels::dtype;
using kernels::instruction_path;
using kernels::quantisation;

struct bits_case {
  std::string model;
  dtype type = dtype::float32;
  instruction_path path = instruction_path::avx2;
  quantisation kind = quantisation::none;
};

std::ostream& operator<<(std::ostream& out, const bits_case& of) {
  return out << of.model << " " << to_string(profile_of(of.path, of.type, of.kind));
}

// Every model with every path this CPU has; with weights as integers, whose products have the same
// bits on all of them, the fastest and the slowest.
std::vector<bits_case> cases_of(const std::vector<std::string>& models) {
  std::vector<bits_case> cases;
  for (const std::string& model : models) {
    for (const dtype type : {dtype::float32, dtype::bfloat16}) {
      for (const instruction_path path : kernels::supported_paths(type)) {
        cases.push_back({model, type, path});
      }
    }
    const auto paths = kernels::supported_paths(dtype::bfloat16);
    if (paths.empty()) continue;
    cases.push_back({model, dtype::bfloat16, paths.front(), quantisation::int8_runs});
    cases.push_back({model, dtype::bfloat16, paths.back(), quantisation::int4_groups});
  }
  return cases;
}

const auto name_of = [](const auto& of) {
  return of.param.model + "_" +
         std::string(weights_name(profile_of(of.param.path, of.param.type, of.param.kind))) + "_" +
         std::string(to_string(of.param.path));
};

// Lengths on both sides of blocks of 16 and of chunks of 64; greedy, sampled, cut by top_p, cut by
// top_k; short and long.
engine::sequence_log probe_of(unsigned number, std::int64_t vocabulary) {
  constexpr std::size_t prompt_tokens[] = {77, 5,  40, 16, 1,  64, 33, 90,
                                           17, 15, 65, 2,  48, 31, 8,  70};
  std::mt19937 random(number + 1);
  engine::sequence_log log;
  log.params.max_tokens = 8 + static_cast<std::int64_t>(number % 5) * 4;
  log.params.ignore_eos = true;
  log.params.logprobs = static_cast<std::int32_t>(number % 4) * 3 - 1;
  log.params.seed = 1000 + number;
  log.params.temperature = number % 4 == 1 ? 0.0F : 0.8F;
  if (number % 4 == 2) log.params.top_p = 0.9F;
  if (number % 4 == 3) log.params.top_k = 20;
  for (std::size_t i = 0; i < prompt_tokens[number % 16]; ++i) {
    log.prompt_ids.push_back(
        static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary)));
  }
  return log;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

constexpr const char* wide_model = "made_wide";  // tests/golden/made_model.hpp

class bits_matrix {
 public:
  explicit bits_matrix(const bits_case& of)
      : made_(of.model == wide_model ? std::make_unique<made_model>() : nullptr),
        model_(made_ ? made_->path() : models_folder() / of.model),
        profile_(profile_of(of.path, of.type, of.kind)) {
    for (unsigned i = 0; i < 16; ++i) logs_.push_back(probe_of(i, model_.config().vocab_size));
    const auto ranks = model_.start(profile_);
    for (unsigned i = 0; i < 16; ++i) {
      alone_.push_back(run(*ranks, {}, logs_[i]));
    }
  }

  [[nodiscard]] bool holds(int tp_size, int pp_size) const {
    return tp_size <= model_.config().num_attention_heads &&
           pp_size <= model_.config().num_hidden_layers;
  }

  // `probes` sequences one after the other.
  void expect_alone(engine::executor& ranks, const run_shape& shape, std::size_t probes) const {
    SCOPED_TRACE(testing::Message() << shape << " batch 1");
    for (std::size_t i = 0; i < probes; ++i) {
      expect_equal(i, run(ranks, shape, logs_[i]));
    }
  }
  // All 16 at once.
  void expect_together(engine::executor& ranks, const run_shape& shape) const {
    SCOPED_TRACE(testing::Message() << shape << " batch 16");
    const std::vector<completion> found = complete(ranks, model_.options(shape), logs_);
    for (std::size_t i = 0; i < found.size(); ++i) expect_equal(i, found[i]);
  }
  [[nodiscard]] std::unique_ptr<engine::thread_executor> start(const run_shape& shape) const {
    return model_.start(profile_, shape);
  }
  [[nodiscard]] engine::sequence_log long_probe(std::size_t prompt_tokens) const {
    engine::sequence_log log = probe_of(2, model_.config().vocab_size);
    while (log.prompt_ids.size() < prompt_tokens) {
      log.prompt_ids.push_back(log.prompt_ids[log.prompt_ids.size() * 7 % 40]);
    }
    log.params.max_tokens = 4;
    return log;
  }
  [[nodiscard]] completion run(engine::executor& ranks, const run_shape& shape,
                               const engine::sequence_log& log) const {
    return complete(ranks, model_.options(shape), {log})[0];
  }

 private:
  void expect_equal(std::size_t sequence, const completion& found) const {
    const std::vector<token_bits>& expected = alone_[sequence].tokens;
    ASSERT_EQ(found.tokens.size(), expected.size()) << "sequence " << sequence;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(found.tokens[i], expected[i])
          << "sequence " << sequence << " of " << logs_[sequence].prompt_ids.size()
          << " prompt tokens, token " << i;
    }
  }

  std::unique_ptr<made_model> made_;
  loaded_model model_;
  kernels::numerics_profile profile_;
  std::vector<engine::sequence_log> logs_;
  std::vector<completion> alone_;  // one rank, one thread, whole prompts, nothing beside
};

// One axis at a time, and a few corners: what runs at every change.
class SameBits : public testing::TestWithParam<bits_case> {};

TEST_P(SameBits, AtEveryChunkBatchAndThreadCount) {
  const bits_matrix matrix(GetParam());
  for (const int threads : {1, 2}) {
    const auto ranks = matrix.start({.threads = threads});
    for (const std::int64_t chunk : {16, 64, 2048}) {
      const run_shape shape{.threads = threads, .chunk = chunk};
      matrix.expect_together(*ranks, shape);
      if (chunk != 2048 || threads != 1) matrix.expect_alone(*ranks, shape, 4);
      if (HasFailure()) return;
    }
  }
}

TEST_P(SameBits, AtEveryTensorAndPipelineParallelSize) {
  const bits_matrix matrix(GetParam());
  int turn = 0;
  for (const int tp_size : {1, 2, 4, 8}) {
    for (const int pp_size : {1, 2, 3}) {
      if (!matrix.holds(tp_size, pp_size) || (tp_size == 8 && pp_size == 3)) continue;
      const run_shape shape{.tp_size = tp_size,
                            .pp_size = pp_size,
                            .threads = 1 + ++turn % 2,
                            .chunk = turn % 3 == 0 ? 16 : 64};
      matrix.expect_together(*matrix.start(shape), shape);
      if (HasFailure()) return;
    }
  }
}

// Beyond 1024 positions attention folds partial results: those must not depend on chunks either.
TEST_P(SameBits, OfALongPromptInAnyChunks) {
  const bits_matrix matrix(GetParam());
  const engine::sequence_log log = matrix.long_probe(sanitized ? 200 : 1100);
  const completion whole = matrix.run(*matrix.start({}), {}, log);
  for (const int tp_size : {1, 2}) {
    run_shape shape{.tp_size = tp_size, .threads = 2};
    const auto ranks = matrix.start(shape);
    for (const std::int64_t chunk : {16, 400, 2048}) {
      shape.chunk = chunk;
      EXPECT_EQ(matrix.run(*ranks, shape, log).tokens, whole.tokens) << shape;
    }
  }
}

// Heads that do not divide by the ranks, one KV head, windows, mixed windows; the made model is the
// one with wide layers. Sanitizers are after memory and threads, which two models show, at ten
// times the cost.
std::vector<bits_case> quick_cases() {
  if (sanitized) return cases_of({"llama_group_7", "qwen2_window_mixed"});
  return cases_of({"llama_plain", "llama_group_7", "mistral_window_7", "qwen2_window_mixed",
                   "qwen3_window_mixed", wide_model});
}
INSTANTIATE_TEST_SUITE_P(Models, SameBits, testing::ValuesIn(quick_cases()), name_of);

// The full product.
class SameBitsFull : public testing::TestWithParam<bits_case> {};

TEST_P(SameBitsFull, AtEverySize) {
  const bits_matrix matrix(GetParam());
  for (const int tp_size : {1, 2, 4, 8}) {
    for (const int pp_size : {1, 2, 3}) {
      if (!matrix.holds(tp_size, pp_size)) continue;
      for (const int threads : {1, 2}) {
        run_shape shape{.tp_size = tp_size, .pp_size = pp_size, .threads = threads};
        const auto ranks = matrix.start(shape);
        for (const std::int64_t chunk : {16, 64, 2048}) {
          shape.chunk = chunk;
          matrix.expect_together(*ranks, shape);
          matrix.expect_alone(*ranks, shape, 4);
          if (HasFailure()) return;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, SameBitsFull,
    testing::ValuesIn(cases_of(
        {"llama_plain", "llama_14_heads_2_kv", "llama_biases", "llama_rope_dynamic",
         "llama_sharded", "llama_tied", "mistral_window_24", "mistral_window_7", "qwen2_tied",
         "qwen2_window_mixed", "qwen3_window_mixed", "qwen3_yarn_biases", wide_model})),
    name_of);

// Which sizes a model has is part of what it promises.
TEST(SameBitsSizes, ATensorParallelSizeAboveTheHeadsIsRefusedWithTheReason) {
  const loaded_model model(models_folder() / "llama_5_heads");
  const auto profile = profile_of(kernels::supported_paths(dtype::float32).front(), dtype::float32);
  EXPECT_TRUE(model.try_start(profile, {.tp_size = 4}).has_value());
  const auto refused = model.try_start(profile, {.tp_size = 8});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, base::error_code::invalid_argument);
  EXPECT_EQ(refused.error().message,
            "tensor-parallel size 8 is above the model's 5 query heads, so a rank would have none; "
            "use a smaller size");
}

TEST(SameBitsSizes, OtherTensorParallelSizesAndMoreStagesThanLayersAreRefused) {
  const loaded_model model(models_folder() / "llama_5_heads");
  const auto profile = profile_of(kernels::supported_paths(dtype::float32).front(), dtype::float32);
  EXPECT_EQ(model.try_start(profile, {.tp_size = 3}).error().message,
            "tensor-parallel size 3 is not 1, 2, 4 or 8");
  EXPECT_EQ(model.try_start(profile, {.pp_size = 3}).error().message,
            "pipeline-parallel size 3 is not between 1 and the model's 2 layers");
}

// Bits belong to a path: the matrix would be empty words if the paths agreed by accident of a
// broken dispatch.
TEST(SameBitsSizes, PathsThatComputeDifferentlyDiffer) {
  const auto paths = kernels::supported_paths(dtype::bfloat16);
  if (paths.size() < 2) GTEST_SKIP() << "one path only on this CPU";
  const loaded_model model(models_folder() / "llama_plain");
  engine::sequence_log log = probe_of(0, model.config().vocab_size);
  const auto run = [&](instruction_path path) {
    return complete(*model.start(profile_of(path, dtype::bfloat16)), model.options(), {log})[0];
  };
  EXPECT_NE(run(paths.front()).tokens, run(paths.back()).tokens);
}

}  // namespace
}  // namespace troupe::golden
