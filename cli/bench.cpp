// troupe bench MODEL: the engine without HTTP, against this machine's limits measured in the same
// run. troupe bench --url: a server over HTTP (load_command).
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "cli/bench_figures.hpp"
#include "cli/bench_quality.hpp"
#include "cli/commands.hpp"
#include "cli/gang_model.hpp"
#include "cli/json_number.hpp"
#include "cli/load_command.hpp"
#include "cli/load_plan.hpp"
#include "cli/print_report.hpp"
#include "cli/running_model.hpp"
#include "cli/yaml_config.hpp"
#include "kernels/machine_peak.hpp"

namespace troupe::cli {
namespace {

struct bench_flags {
  model_flags model;
  std::int64_t prompt_tokens = 512;
  std::int64_t max_tokens = 128;
  std::int64_t concurrency = 1;
  int repeat = 5;
  std::string output = "text";
  bool quality = false;
  std::string text;
  load_flags load;
};

struct machine_limits {
  double read_gb_per_s = 0.0;
  double matmul_gflop_per_s = 0.0;
};

// One round: all sequences added together and run to their end.
struct round_times {
  double first_tokens_s = 0.0;  // until the last sequence had its first token
  double decode_s = 0.0;        // from there to the end
  std::int64_t decode_tokens = 0;
  std::int64_t decode_steps = 0;
  std::vector<double> ttft_s;  // one a sequence
};

using steady = std::chrono::steady_clock;

base::result<void> add_sequences(engine::engine& on, const bench_flags& flags,
                                 std::int64_t vocab_size, std::uint64_t round) {
  std::mt19937_64 random(round);  // a fixed seed: every run of bench measures the same prompts
  for (std::int64_t i = 0; i < flags.concurrency; ++i) {
    engine::sequence_log log{.params = {.temperature = 0.0F,
                                        .max_tokens = flags.max_tokens,
                                        .ignore_eos = true,
                                        .stop_token_ids = {}},
                             .prompt_ids = {},
                             .emitted_ids = {}};
    for (std::int64_t token = 0; token < flags.prompt_tokens; ++token) {
      const auto id = random() % static_cast<std::uint64_t>(vocab_size);
      log.prompt_ids.push_back(static_cast<std::int32_t>(id));
    }
    TROUPE_TRY_VOID(on.add(std::move(log)));
  }
  return {};
}

base::result<round_times> run_round(engine::engine& on, const bench_flags& flags,
                                    std::int64_t vocab_size, std::uint64_t round) {
  round_times times;
  TROUPE_TRY_VOID(add_sequences(on, flags, vocab_size, round));
  const auto begin = steady::now();
  const auto since = [&] { return std::chrono::duration<double>(steady::now() - begin).count(); };
  std::map<base::sequence_id, bool> started;
  while (!on.idle()) {
    TROUPE_TRY(events, on.step());
    const double now = since();
    const bool decoding = times.first_tokens_s > 0.0;
    if (decoding) ++times.decode_steps;
    for (const engine::engine_event& event : events) {
      if (event.failed) return tl::unexpected(*event.failed);
      if (decoding) ++times.decode_tokens;
      if (started.emplace(event.token.sequence, true).second) times.ttft_s.push_back(now);
    }
    if (!decoding && static_cast<std::int64_t>(started.size()) == flags.concurrency) {
      times.first_tokens_s = now;
    }
  }
  times.decode_s = since() - times.first_tokens_s;
  return times;
}

base::result<machine_limits> measure_machine(const opened_model& opened, int threads) {
  if (opened.device) {
    TROUPE_TRY(peaks, opened.device->measure_peaks());
    return machine_limits{.read_gb_per_s = peaks.copy_gbytes_per_s,
                          .matmul_gflop_per_s = peaks.matmul_gflop_per_s};
  }
  kernels::thread_pool pool({.threads = threads});
  return machine_limits{
      .read_gb_per_s = kernels::measure_read_bandwidth(pool),
      .matmul_gflop_per_s = kernels::measure_product_peak(
          pool, opened.profile.path, opened.profile.weights,
          is_integer(opened.profile.kept) ? opened.profile.kept : kernels::quantisation::none)};
}

nlohmann::ordered_json json_of(const spread& of) {
  return {{"median", nine_digits(of.median)},
          {"min", nine_digits(of.min)},
          {"max", nine_digits(of.max)}};
}

nlohmann::ordered_json figures(const bench_flags& flags, const opened_model& opened,
                               const std::vector<round_times>& rounds,
                               const machine_limits& limits) {
  const work_model work(opened.config, opened.profile);
  const auto sequences = static_cast<double>(flags.concurrency);
  std::vector<double> prefill;
  std::vector<double> decode;
  std::vector<double> ttft;
  std::vector<double> steps_per_s;
  for (const round_times& times : rounds) {
    prefill.push_back(sequences * static_cast<double>(flags.prompt_tokens) / times.first_tokens_s);
    for (const double seconds : times.ttft_s) ttft.push_back(seconds * 1e3);
    if (times.decode_steps == 0) continue;
    decode.push_back(static_cast<double>(times.decode_tokens) / times.decode_s);
    steps_per_s.push_back(static_cast<double>(times.decode_steps) / times.decode_s);
  }
  nlohmann::ordered_json out;
  const spread prefill_spread = spread_of(prefill);
  out["prefill_tokens_per_s"] = json_of(prefill_spread);
  if (!decode.empty()) out["decode_tokens_per_s"] = json_of(spread_of(decode));
  out["time_to_first_token_ms"] = json_of(spread_of(ttft));
  if (!steps_per_s.empty()) {
    // What a step takes if only the memory, or only the products, had a limit.
    const std::int64_t context = flags.prompt_tokens + flags.max_tokens / 2;
    const double reading_s =
        work.decode_bytes(context, flags.concurrency) / (limits.read_gb_per_s * 1e9);
    const double multiplying_s =
        work.decode_flop(context, flags.concurrency) / (limits.matmul_gflop_per_s * 1e9);
    const double rate = spread_of(steps_per_s).median;
    out["decode_read_bandwidth_share"] = nine_digits(reading_s * rate);
    out["decode_roofline_share"] = nine_digits(std::max(reading_s, multiplying_s) * rate);
  }
  const double flop_per_token =
      work.prefill_flop(flags.prompt_tokens) / static_cast<double>(flags.prompt_tokens);
  out["prefill_matmul_share"] =
      nine_digits(prefill_spread.median * flop_per_token / (limits.matmul_gflop_per_s * 1e9));
  return out;
}

// One entry a rank's process: the most this one had, what the others have now.
nlohmann::ordered_json peak_pss_bytes(const model_flags& flags, const running_model& running) {
  auto all = nlohmann::ordered_json::array();
  all.push_back(std::max(running.peak_pss_bytes, resident_pss_bytes()));
  if (flags.ranks == "threads") return all;
  for (const std::uint64_t bytes : sibling_pss_bytes()) all.push_back(bytes);
  return all;
}

// After the rounds, when all ranks are idle: while they start, another one may be loading. A
// virtual machine's memory changes its speed within seconds, so the better of before and after
// counts.
base::result<machine_limits> measure_again(const bench_flags& flags, const opened_model& opened,
                                           const machine_limits& before) {
  if (opened.device) return before;
  TROUPE_TRY(after, measure_machine(opened, world_size(flags.model) * opened.threads_per_rank));
  return machine_limits{
      .read_gb_per_s = std::max(before.read_gb_per_s, after.read_gb_per_s),
      .matmul_gflop_per_s = std::max(before.matmul_gflop_per_s, after.matmul_gflop_per_s)};
}

exit_code run_rounds(const bench_flags& flags, const opened_model& opened,
                     const machine_limits& before, running_model& running) {
  std::vector<round_times> rounds;
  for (int round = 0; round <= flags.repeat; ++round) {  // the first warms up and is not counted
    auto times = run_round(*running.engine, flags, opened.config.vocab_size,
                           static_cast<std::uint64_t>(round));
    if (!times) return report(times.error());
    if (round > 0) rounds.push_back(*std::move(times));
  }
  const auto measured = measure_again(flags, opened, before);
  if (!measured) return report(measured.error());
  const machine_limits limits = *measured;
  nlohmann::ordered_json out;
  out["machine"] = {
      {"read_bandwidth_gb_per_s", nine_digits(limits.read_gb_per_s)},
      {"matmul_peak_gflop_per_s",
       {{std::string(weights_name(opened.profile)), nine_digits(limits.matmul_gflop_per_s)}}}};
  out["numerics"] = to_string(opened.profile);
  out["device"] = opened.device ? opened.device->describe() : "cpu";
  out.update(figures(flags, opened, rounds, limits));
  if (const engine::device_idle idle = running.ranks->idle(); idle.steps > 0) {
    const std::chrono::duration<double, std::micro> total = idle.total;
    out["host_us_per_replayed_step"] = nine_digits(total.count() / static_cast<double>(idle.steps));
  }
  out["peak_pss_bytes"] = peak_pss_bytes(flags.model, running);
  out["load_s"] = nine_digits(running.load_s);
  return print_report(out, flags.output);
}

// Of an engine's rounds all prompts are of one length.
base::result<std::int64_t> one_length(const char* flag, const std::string& text) {
  TROUPE_TRY(length, length_distribution::parse(text));
  if (const auto fixed = length.fixed()) return *fixed;
  return base::fail(base::error_code::invalid_argument, "cli",
                    std::string(flag) + ": '" + text + "' needs --url; MODEL takes one length");
}

void add_load_flags(CLI::App& parser, load_flags& flags) {
  parser.add_option("--url", flags.url, "instead of MODEL: a server with OpenAI's API")
      ->type_name("URL");
  parser.add_option("--model", flags.model, "name at the server [its first]");
  parser.add_option("--endpoint", flags.endpoint, "of the server")
      ->check(CLI::IsMember({"/v1/completions", "/v1/chat/completions"}))
      ->capture_default_str();
  parser.add_option("--api-key-file", flags.api_key_file, "the key for the server")
      ->type_name("FILE");
  parser.add_option("--num-prompts", flags.num_prompts, "requests")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  parser.add_option("--request-rate", flags.request_rate, "requests a second, or inf: all at once")
      ->capture_default_str();
  parser
      .add_option("--burstiness", flags.burstiness, "of arrivals: 1 is Poisson, less is burstier")
      ->check(CLI::Range(0.01, 100.0))
      ->capture_default_str();
  parser.add_option("--max-concurrency", flags.max_concurrency, "open requests at most [no bound]")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  parser
      .add_option("--prefix-tokens", flags.prefix_tokens, "of each prompt that are the same in all")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
      ->capture_default_str();
  parser
      .add_option("--trace", flags.trace,
                  "JSON lines of arrival_s (or timestamp in ms), prompt_tokens, max_tokens")
      ->type_name("FILE");
  parser.add_option("--seed", flags.seed, "of lengths, arrivals and prompts")
      ->capture_default_str();
  parser.add_option("--timeout", flags.timeout_s, "s for one request")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{86'400}))
      ->capture_default_str();
  parser.add_option("--goodput", flags.goodput, "limits in ms, e.g. 'ttft:500 itl:50 e2el:20000'");
  parser.add_option("--plot", flags.plot, "picture of the latencies (SVG)")->type_name("FILE");
  parser.add_option("--save-requests", flags.save_requests, "a JSON line a request")
      ->type_name("FILE");
}

exit_code run_bench(const bench_flags& flags, const invocation& called) {
  const auto opened = open_model(flags.model, called.rank());
  if (!opened) return report(opened.error());
  const gang_command command{.called = called,
                             .model = flags.model,
                             .opened = *opened,
                             .load = {.positions = flags.prompt_tokens + flags.max_tokens,
                                      .sequences = flags.concurrency}};
  machine_limits limits;
  // Measured where the figures are printed.
  const bool prints = flags.model.ranks == "threads" || (called.seat && called.seat->rank == 0);
  if (prints) {
    const auto measured =
        measure_machine(*opened, world_size(flags.model) * opened->threads_per_rank);
    if (!measured) return report(measured.error());
    limits = *measured;
  }
  return run_over_ranks(
      command, [&](running_model& running) { return run_rounds(flags, *opened, limits, running); });
}

exit_code run_command(bench_flags& flags, const invocation& called) {
  const auto misused = [](const char* what) {
    std::cerr << "troupe: bench: " << what << '\n';
    return exit_code::usage;
  };
  if (!flags.load.url.empty() && !flags.model.model.empty()) {
    return misused("give MODEL (the engine alone) or --url (a server), not both");
  }
  flags.load.output = flags.output;
  if (!flags.load.url.empty()) return run_load(flags.load);
  if (flags.model.model.empty()) return misused("MODEL is missing, or --url of a server");
  if (!flags.text.empty() && !flags.quality) return misused("--text needs --quality");
  const auto prompt = one_length("--prompt-tokens", flags.load.prompt_tokens);
  if (!prompt) return report(prompt.error(), exit_code::usage);
  const auto answer = one_length("--max-tokens", flags.load.max_tokens);
  if (!answer) return report(answer.error(), exit_code::usage);
  flags.prompt_tokens = *prompt;
  flags.max_tokens = *answer;
  if (flags.quality) {
    if (flags.prompt_tokens < 2) return misused("--quality needs --prompt-tokens of at least 2");
    return run_quality(flags.model, {.text = flags.text,
                                     .sequence_tokens = flags.prompt_tokens,
                                     .sequences = flags.repeat,
                                     .output = flags.output});
  }
  return run_bench(flags, called);
}

}  // namespace

command add_bench(CLI::App& program, const invocation& called) {
  auto flags = std::make_shared<bench_flags>();
  CLI::App* parser = program.add_subcommand("bench", "Measure the engine, or a server");
  flags->model.prefix_caching = false;  // every round computes the same prompts
  add_model_flags(*parser, flags->model);
  parser->get_option("MODEL")->required(false);
  add_ranks_flag(*parser, flags->model);
  add_load_flags(*parser, flags->load);
  parser
      ->add_option("--prompt-tokens", flags->load.prompt_tokens,
                   "of each prompt; with --url also uniform:100-900, lognormal:MEDIAN,SIGMA, "
                   "exponential:MEAN")
      ->capture_default_str();
  parser->add_option("--max-tokens", flags->load.max_tokens, "of each answer, likewise")
      ->capture_default_str();
  parser->add_option("--concurrency", flags->concurrency, "sequences at once")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1024}))
      ->capture_default_str();
  parser->add_option("--repeat", flags->repeat, "counted rounds, after one that is not")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  parser->add_flag("--quality", flags->quality,
                   "perplexity and errors of --dtype beside bfloat16, over --repeat sequences of "
                   "--prompt-tokens");
  parser->add_option("--text", flags->text, "what --quality scores [random tokens]")
      ->type_name("FILE");
  parser->add_option("--output", flags->output, "what stdout gets")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  add_sources(*parser);
  return {parser, [flags, &called] { return run_command(*flags, called); }};
}

}  // namespace troupe::cli
