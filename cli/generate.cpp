// troupe generate MODEL: one request, no server.
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/entropy.hpp"
#include "base/memory_file.hpp"
#include "cli/bounded_file.hpp"
#include "cli/commands.hpp"
#include "cli/gang_model.hpp"
#include "cli/generation.hpp"
#include "cli/json_number.hpp"
#include "cli/running_model.hpp"
#include "cli/yaml_config.hpp"
#include "models/demo/demo_folder.hpp"

namespace troupe::cli {
namespace {

struct generate_limits {
  static constexpr std::size_t prompt_bytes_max = std::size_t{16} << 20;
  static constexpr std::uint32_t choices_max = 128;
};

struct generate_flags {
  model_flags model;
  std::string prompt;
  std::string prompt_file;
  std::string prompt_token_ids;
  std::int64_t max_tokens = 128;
  float temperature = 0.0F;
  float top_p = 1.0F;
  std::int32_t top_k = 0;
  std::string seed;  // empty: drawn
  std::uint32_t n = 1;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  std::int32_t logprobs = -1;
  std::string output = "text";
};

base::result<std::vector<std::int32_t>> parse_ids(const std::string& list) {
  std::vector<std::int32_t> ids;
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at != end) {
    std::int32_t id = 0;
    const auto [stop, problem] = std::from_chars(at, end, id);
    if (problem != std::errc() || (stop != end && *stop != ',') || stop + 1 == end) {
      return base::fail(base::error_code::invalid_argument, "cli",
                        "--prompt-token-ids: not a list like 1,2,3 at character " +
                            std::to_string(at - list.data() + 1));
    }
    ids.push_back(id);
    at = stop == end ? end : stop + 1;
  }
  return ids;
}

// A request's seed, or one drawn now: from here on nothing is random.
base::result<std::uint64_t> resolve_seed(const std::string& text) {
  if (text.empty()) return base::draw_seed();
  std::uint64_t seed = 0;
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (problem != std::errc() || stop != text.data() + text.size()) {
    return base::fail(base::error_code::invalid_argument, "cli",
                      "--seed is \"" + text + "\", allowed: 0 to 18446744073709551615");
  }
  return seed;
}

nlohmann::ordered_json logprob_json(const engine::sampled_token& token) {
  nlohmann::ordered_json top = nlohmann::ordered_json::array();
  for (const engine::token_logprob& entry : token.top) {
    top.push_back({{"token_id", entry.token_id},
                   {"logprob", nine_digits(static_cast<double>(entry.logprob))}});
  }
  return {{"token_id", token.token_id},
          {"logprob", nine_digits(static_cast<double>(token.logprob))},
          {"top", std::move(top)}};
}

void print_json(const generation_request& request, const generation& made, double load_s) {
  nlohmann::ordered_json choices = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < made.choices.size(); ++i) {
    const generated_choice& choice = made.choices[i];
    nlohmann::ordered_json ids = nlohmann::ordered_json::array();
    for (const engine::sampled_token& token : choice.tokens) ids.push_back(token.token_id);
    nlohmann::ordered_json entry = {{"index", i},
                                    {"token_ids", std::move(ids)},
                                    {"text", choice.text},
                                    {"finish_reason", to_string(choice.finish)}};
    if (request.params.logprobs >= 0) {
      entry["logprobs"] = nlohmann::ordered_json::array();
      for (const engine::sampled_token& token : choice.tokens) {
        entry["logprobs"].push_back(logprob_json(token));
      }
    }
    choices.push_back(std::move(entry));
  }
  const nlohmann::ordered_json output = {{"prompt_token_ids", request.prompt_ids},
                                         {"choices", std::move(choices)},
                                         {"seed", request.params.seed},
                                         {"timings",
                                          {{"load_s", nine_digits(load_s)},
                                           {"prefill_s", nine_digits(made.prefill_s)},
                                           {"decode_s", nine_digits(made.decode_s)}}}};
  std::cout << output.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

// The tokenizer where the folder has one; token ids alone do without.
base::result<std::unique_ptr<text::tokenizer>> open_tokenizer(const generate_flags& flags) {
  auto opened = text::tokenizer::open(models::find_model(flags.model.model));
  if (opened) return std::make_unique<text::tokenizer>(std::move(*opened));
  const bool needed =
      flags.prompt_token_ids.empty() || flags.output == "text" || !flags.stop.empty();
  if (opened.error().code == base::error_code::not_found && !needed) {
    return std::unique_ptr<text::tokenizer>();
  }
  return tl::unexpected(std::move(opened).error());
}

// What the engine would refuse, found before any rank is started.
base::result<void> check_request(const generation_request& request, const model_flags& flags,
                                 const opened_model& opened, const engine_limits& limits) {
  engine::sequence_log log;
  log.params = request.params;
  log.prompt_ids = request.prompt_ids;
  return engine::check_admission(log, engine_options_of(flags, opened, limits).limits());
}

base::result<generation_request> make_request(const generate_flags& flags,
                                              const text::tokenizer* tokenizer,
                                              std::uint64_t seed) {
  generation_request request{.params = {.temperature = flags.temperature,
                                        .top_p = flags.top_p,
                                        .top_k = flags.top_k,
                                        .seed = seed,
                                        .max_tokens = flags.max_tokens,
                                        .ignore_eos = flags.ignore_eos,
                                        .stop_token_ids = {},
                                        .logprobs = flags.logprobs},
                             .prompt_ids = {},
                             .choices = flags.n,
                             .stop = flags.stop,
                             .tokenizer = tokenizer,
                             .on_text = {}};
  if (!flags.prompt_token_ids.empty()) {
    TROUPE_TRY(ids, parse_ids(flags.prompt_token_ids));
    request.prompt_ids = std::move(ids);
  } else {
    std::string prompt = flags.prompt;
    if (!flags.prompt_file.empty()) {
      TROUPE_TRY(text, read_bounded_file("--prompt-file", flags.prompt_file,
                                         generate_limits::prompt_bytes_max));
      prompt = std::move(text);
    }
    TROUPE_TRY(ids, tokenizer->encode(prompt, {}));
    request.prompt_ids = std::move(ids);
  }
  return request;
}

exit_code print(const generate_flags& flags, const generation_request& request,
                const generation& made, double load_s) {
  if (flags.output == "json") {
    print_json(request, made, load_s);
  } else if (request.on_text) {
    std::cout << '\n';
  } else {
    for (const generated_choice& choice : made.choices) std::cout << choice.text << '\n';
  }
  return std::cout.flush() ? exit_code::fine : exit_code::failed;
}

// A prompt that can be read only once (a pipe) is read by the user's process alone; the ranks read
// this copy of it.
base::result<std::optional<base::fd>> keep_prompt(generate_flags& flags) {
  if (flags.prompt_file.empty() || std::filesystem::is_regular_file(flags.prompt_file)) {
    return std::optional<base::fd>{};
  }
  TROUPE_TRY(text, read_bounded_file("--prompt-file", flags.prompt_file,
                                     generate_limits::prompt_bytes_max));
  TROUPE_TRY(kept, base::make_memory_file({.name = "prompt", .bytes = text.size()}));
  if (::pwrite(kept.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return base::fail(base::error_code::resource_exhausted, "cli", "no memory for the prompt");
  }
  flags.prompt_file = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(kept.get());
  return std::optional(std::move(kept));
}

exit_code run_generate(generate_flags flags, const invocation& called) {
  if (called.seat && !called.seat->prompt_file.empty()) {
    flags.prompt_file = called.seat->prompt_file;
  }
  const auto seed = resolve_seed(flags.seed);
  if (!seed) return report(seed.error(), exit_code::usage);
  const auto opened = open_model(flags.model, called.rank());
  if (!opened) return report(opened.error());
  gang_command command{.called = called, .model = flags.model, .opened = *opened, .load = {}};
  if (called.seat && called.seat->rank != 0) {
    command.load = {.positions = called.seat->positions, .sequences = called.seat->sequences};
    return run_over_ranks(command, {});
  }
  const auto kept = keep_prompt(flags);
  if (!kept) return report(kept.error(), exit_code::usage);
  if (*kept) command.prompt_file = flags.prompt_file;
  const auto tokenizer = open_tokenizer(flags);
  if (!tokenizer) return report(tokenizer.error());
  auto request = make_request(flags, tokenizer->get(), *seed);
  if (!request) return report(request.error(), exit_code::usage);
  if (flags.output == "text" && flags.n == 1) {
    request->on_text = [](const std::string& text) { std::cout << text << std::flush; };
  }
  command.load = {
      .positions = static_cast<std::int64_t>(request->prompt_ids.size()) + flags.max_tokens,
      .sequences = static_cast<std::int64_t>(flags.n)};
  if (const auto limits = choose_limits(flags.model, *opened, command.load); !limits) {
    return report(limits.error());
  } else if (const auto valid = check_request(*request, flags.model, *opened, *limits); !valid) {
    const bool usage = valid.error().code == base::error_code::invalid_argument;
    return report(valid.error(), usage ? exit_code::usage : exit_code_of(valid.error().code));
  }
  return run_over_ranks(command, [&](running_model& running) {
    const auto made = run_generation(*running.engine, *request);
    return made ? print(flags, *request, *made, running.load_s) : report(made.error());
  });
}

}  // namespace

command add_generate(CLI::App& program, const invocation& called) {
  auto flags = std::make_shared<generate_flags>();
  CLI::App* parser =
      program.add_subcommand("generate", "Generate without a server: text on stdout");
  add_model_flags(*parser, flags->model);
  add_ranks_flag(*parser, flags->model);
  parser->add_option("--prompt", flags->prompt, "text; or --prompt-file, or --prompt-token-ids");
  parser->add_option("--prompt-file", flags->prompt_file, "file with the text")->type_name("FILE");
  parser->add_option("--prompt-token-ids", flags->prompt_token_ids, "1,2,3")->type_name("IDS");
  parser->add_option("--max-tokens", flags->max_tokens, "tokens to generate at most")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 28))
      ->capture_default_str();
  parser->add_option("--temperature", flags->temperature, "0 (greedy) to 2")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  parser->add_option("--top-p", flags->top_p, "above 0, up to 1 (off)")
      ->check(CLI::Range(1e-9, 1.0))
      ->capture_default_str();
  parser->add_option("--top-k", flags->top_k, "0 is off")
      ->check(CLI::Range(0, 1 << 22))
      ->capture_default_str();
  parser->add_option("--seed", flags->seed, "of the sampling [drawn]")->type_name("UINT64");
  parser->add_option("--n", flags->n, "choices")
      ->check(CLI::Range(std::uint32_t{1}, generate_limits::choices_max))
      ->capture_default_str();
  parser->add_option("--stop", flags->stop, "string that ends the answer; may be given again")
      ->allow_extra_args(false);
  parser->add_flag("--ignore-eos", flags->ignore_eos, "go on past the model's end token");
  parser->add_option("--logprobs", flags->logprobs, "0 to 20 alternatives a token, in the JSON")
      ->check(CLI::Range(0, engine::sampling_limits::logprobs_max));
  parser->add_option("--output", flags->output, "what stdout gets")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  add_sources(*parser);
  return {parser, [flags, parser, &called] {
            std::size_t prompts = 0;
            for (const char* name : {"--prompt", "--prompt-file", "--prompt-token-ids"}) {
              prompts += parser->count(name) > 0 ? 1 : 0;
            }
            if (prompts == 1) return run_generate(*flags, called);
            return report_usage(
                "troupe generate: give exactly one of --prompt, --prompt-file and "
                "--prompt-token-ids; there " +
                std::string(prompts == 0 ? "is none" : "are several"));
          }};
}

}  // namespace troupe::cli
