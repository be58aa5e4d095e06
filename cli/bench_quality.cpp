#include "cli/bench_quality.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>
#include <vector>

#include "cli/bounded_file.hpp"
#include "cli/json_number.hpp"
#include "cli/print_report.hpp"
#include "cli/running_model.hpp"
#include "models/demo/demo_folder.hpp"
#include "models/text/tokenizer.hpp"

namespace troupe::cli {
namespace {

using token_ids = std::vector<std::int32_t>;

constexpr std::size_t text_bytes_max = std::size_t{16} << 20;
constexpr std::int64_t sequence_tokens_min = 2;  // the first token has nothing before it

// What a model says of each token but the first of each sequence.
struct scored_tokens {
  std::vector<double> logprobs;
  std::vector<std::int32_t> likeliest;

  [[nodiscard]] double perplexity() const {
    double sum = 0.0;
    for (const double logprob : logprobs) sum += logprob;
    return std::exp(-sum / static_cast<double>(logprobs.size()));
  }
};

base::result<std::vector<token_ids>> sequences_of(const model_flags& model,
                                                  const quality_flags& flags,
                                                  std::int64_t vocab_size) {
  const auto each = static_cast<std::size_t>(flags.sequence_tokens);
  const auto most = each * static_cast<std::size_t>(flags.sequences);
  token_ids all;
  if (flags.text.empty()) {
    std::mt19937_64 random(1);  // a fixed seed: every run scores the same
    while (all.size() < most) {
      const auto id = random() % static_cast<std::uint64_t>(vocab_size);
      all.push_back(static_cast<std::int32_t>(id));
    }
  } else {
    TROUPE_TRY(tokenizer, text::tokenizer::open(models::find_model(model.model)));
    TROUPE_TRY(text, read_bounded_file("--text", flags.text, text_bytes_max));
    TROUPE_TRY(ids, tokenizer.encode(text, {}));
    all = std::move(ids);
    all.resize(std::min(all.size(), most));
  }
  std::vector<token_ids> sequences;
  for (auto begin = all.begin(); all.end() - begin >= sequence_tokens_min;) {
    const auto end = begin + std::min<std::ptrdiff_t>(flags.sequence_tokens, all.end() - begin);
    sequences.emplace_back(begin, end);
    begin = end;
  }
  if (!sequences.empty()) return sequences;
  return base::fail(base::error_code::invalid_argument, "cli",
                    "--text " + flags.text + " has fewer than two tokens");
}

base::result<void> score(engine::engine& on, const token_ids& ids, scored_tokens& into) {
  TROUPE_TRY_VOID(on.add({.params = {.temperature = 0.0F,
                                     .max_tokens = 1,
                                     .ignore_eos = true,
                                     .stop_token_ids = {},
                                     .prompt_logprobs = 1},
                          .prompt_ids = ids,
                          .emitted_ids = {}}));
  while (!on.idle()) {
    TROUPE_TRY(events, on.step());
    for (const engine::engine_event& event : events) {
      if (event.failed) return tl::unexpected(*event.failed);
      for (const engine::sampled_token& token : event.prompt_logprobs) {
        into.logprobs.push_back(static_cast<double>(token.logprob));
        into.likeliest.push_back(token.top.empty() ? -1 : token.top.front().token_id);
      }
    }
  }
  return {};
}

struct scored_model {
  std::string weights;
  scored_tokens tokens;
};

base::result<scored_model> score_all(const model_flags& model, const quality_flags& flags) {
  TROUPE_TRY(opened, open_model(model));
  TROUPE_TRY(sequences, sequences_of(model, flags, opened.config.vocab_size));
  TROUPE_TRY(running,
             start_model(model, opened, {.positions = flags.sequence_tokens + 1, .sequences = 1}));
  scored_model scored{.weights = std::string(weights_name(opened.profile)), .tokens = {}};
  for (const token_ids& ids : sequences) {
    TROUPE_TRY_VOID(score(*running.engine, ids, scored.tokens));
  }
  return scored;
}

nlohmann::ordered_json compared(const scored_model& rounded, const scored_model& reference) {
  const std::size_t count = rounded.tokens.logprobs.size();
  double sum = 0.0;
  double largest = 0.0;
  std::size_t same = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double error = std::abs(rounded.tokens.logprobs[i] - reference.tokens.logprobs[i]);
    sum += error;
    largest = std::max(largest, error);
    if (rounded.tokens.likeliest[i] == reference.tokens.likeliest[i]) ++same;
  }
  const auto tokens = static_cast<double>(count);
  return {{"weights", rounded.weights},
          {"reference", reference.weights},
          {"tokens", count},
          {"perplexity", nine_digits(rounded.tokens.perplexity())},
          {"reference_perplexity", nine_digits(reference.tokens.perplexity())},
          {"logprob_error", {{"mean", nine_digits(sum / tokens)}, {"max", nine_digits(largest)}}},
          {"same_likeliest_share", nine_digits(static_cast<double>(same) / tokens)}};
}

}  // namespace

exit_code run_quality(const model_flags& model, const quality_flags& flags) {
  model_flags alone = model;
  alone.ranks = "threads";
  const auto rounded = score_all(alone, flags);
  if (!rounded) return report(rounded.error());
  alone.dtype = rounded->weights == "bfloat16" ? "float32" : "bfloat16";
  const auto reference = score_all(alone, flags);
  if (!reference) return report(reference.error());
  return print_report(compared(*rounded, *reference), flags.output);
}

}  // namespace troupe::cli
