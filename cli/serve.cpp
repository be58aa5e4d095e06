// troupe serve MODEL: a gang on this machine, or this machine's part of one, with OpenAI's API.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/entropy.hpp"
#include "cli/bounded_file.hpp"
#include "cli/build_id.hpp"
#include "cli/commands.hpp"
#include "cli/gang_launch.hpp"
#include "cli/grammar_constraint.hpp"
#include "cli/group_sizes.hpp"
#include "cli/http_listener.hpp"
#include "cli/rank_process.hpp"
#include "cli/serving_driver.hpp"
#include "cli/yaml_config.hpp"
#include "lws/group_environment.hpp"
#include "serving/openai_server.hpp"
#include "supervisor/supervisor.hpp"

namespace troupe::cli {
namespace {

constexpr std::chrono::milliseconds supervisor_silence_max{3000};  // it pings every 500 ms
constexpr std::size_t small_file_bytes_max = std::size_t{1} << 20;

struct serve_flags {
  model_flags model;
  gang_flags gang;
  std::string host;  // empty: loopback, or the gang's address with several machines
  std::uint16_t port = 8000;
  std::string api_key_file;
  std::vector<std::string> served_model_name;
  int drain_timeout_s = 100;
  bool open_metrics = false;
  std::string tool_call_parser = "auto";
  std::string reasoning_parser = "auto";
  bool auto_tool_choice = true;  // vLLM's flag; here tools need no leave
};

// Under LeaderWorkerSet every pod has the same command line: what it leaves open is told by the
// environment. What came of it is one line on stderr, of the supervisor alone.
base::result<void> apply_group(const CLI::App& parser, serve_flags& flags, bool tell) {
  TROUPE_TRY(group, lws::read_group_environment(std::getenv));
  const auto open = [&parser](const char* flag) { return parser.count(flag) == 0; };
  if (group.worker_index && open("--node-rank")) flags.gang.node_rank = *group.worker_index;
  if (group.leader_address && open("--leader")) flags.gang.leader = *group.leader_address;
  if (!group.size || !open("--nnodes")) return {};
  flags.gang.nnodes = *group.size;
  TROUPE_TRY(why, choose_group_sizes(parser, *group.size, group.subgroup_size, flags.model));
  if (why && tell) {
    fmt::print(stderr,
               "troupe: member {} of a group of {} pods: --tensor-parallel-size {} "
               "--pipeline-parallel-size {} ({})\n",
               flags.gang.node_rank, *group.size, flags.model.tensor_parallel_size,
               flags.model.pipeline_parallel_size, *why);
  }
  return {};
}

// Node 0's HTTP: --host, or the gang's address (loopback for a gang on one machine).
base::result<http_listener> open_http(const serve_flags& flags, const gang_topology& topology) {
  std::string host = flags.host;
  if (host.empty()) host = topology.nnodes == 1 ? "127.0.0.1" : topology.gang_host;
  return listen_http(host, flags.port, !flags.api_key_file.empty());
}

exit_code launch(const serve_flags& flags, const invocation& called) {
  const auto opened = open_model(flags.model);
  if (!opened) return report(opened.error());
  if (const auto limits = choose_limits(flags.model, *opened, {}); !limits) {
    return report(limits.error());
  }
  gang_launch starts{.called = called,
                     .model = flags.model,
                     .gang = flags.gang,
                     .seat = {},
                     .drain_patience = std::chrono::seconds(flags.drain_timeout_s)};
  if (flags.gang.node_rank == 0) {
    if (const auto keys = read_api_keys(flags.api_key_file); !keys)
      return report(keys.error(), exit_code::usage);
    starts.open_http = [&flags](const gang_topology& topology) {
      return open_http(flags, topology);
    };
  }
  return supervise(std::move(starts));
}

// What generation_config.json says where a request says nothing.
void read_sampling_defaults(const opened_model& opened, serving::served_model& model) {
  const auto text =
      read_bounded_file("generation_config.json",
                        (opened.folder / "generation_config.json").string(), small_file_bytes_max);
  if (!text) return;
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object()) return;
  const auto number = [&](const char* name, double low, double high) -> std::optional<double> {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_number()) return std::nullopt;
    const double value = found->get<double>();
    return value >= low && value <= high ? std::optional(value) : std::nullopt;
  };
  if (const auto value = number("temperature", 0.0, 2.0)) {
    model.temperature = static_cast<float>(*value);
  }
  if (const auto value = number("top_p", 1e-9, 1.0)) model.top_p = static_cast<float>(*value);
  if (const auto value = number("top_k", 0.0, 1 << 22)) {
    model.top_k = static_cast<std::int32_t>(*value);
  }
}

serving::served_model describe_model(const serve_flags& flags, const opened_model& opened,
                                     const engine_limits& limits) {
  serving::served_model model{.names = flags.served_model_name,
                              .root = flags.model.model,
                              .created = unix_time(),
                              .max_model_len = limits.max_model_len,
                              .vocab_size = static_cast<std::int32_t>(opened.config.vocab_size),
                              .block_size = flags.model.block_size,
                              .kv_cache_dtype = std::string(to_string(opened.profile.kv_cache)),
                              .prefix_caching = flags.model.prefix_caching};
  if (model.names.empty()) model.names.push_back(flags.model.model);
  read_sampling_defaults(opened, model);
  return model;
}

// A part of the folder that token ids alone do without.
template <class Part>
base::result<std::unique_ptr<Part>> open_if_there(const models::model_folder& folder) {
  auto opened = Part::open(folder);
  if (opened) return std::make_unique<Part>(std::move(*opened));
  if (opened.error().code == base::error_code::not_found) return std::unique_ptr<Part>();
  return tl::unexpected(std::move(opened).error());
}

struct text_parts {
  std::unique_ptr<text::tokenizer> tokenizer;
  std::unique_ptr<text::chat_template> chat;
  std::unique_ptr<text::grammar_cache> grammars;
};

// Told by the flags, else by the tokens that the vocabulary has for it.
void describe_answers(const serve_flags& flags, const text_parts& text,
                      serving::served_model& model) {
  const auto has = [&](std::string_view token) {
    return text.tokenizer && text.tokenizer->token_to_id(token).has_value();
  };
  using serving::tool_format;
  const auto tools = serving::parse_tool_format(flags.tool_call_parser);
  model.tools = tools                   ? *tools
                : has("[TOOL_CALLS]")   ? tool_format::mistral
                : has("<tool_call>")    ? tool_format::hermes
                : has("<|python_tag|>") ? tool_format::llama3_json
                                        : tool_format::none;
  using serving::reasoning_format;
  const auto reasoning = serving::parse_reasoning_format(flags.reasoning_parser);
  model.reasoning = reasoning         ? *reasoning
                    : has("</think>") ? reasoning_format::qwen3
                                      : reasoning_format::none;
}

base::result<text_parts> open_text(const opened_model& opened) {
  text_parts parts;
  const models::model_folder& folder = opened.folder;
  TROUPE_TRY(tokenizer, open_if_there<text::tokenizer>(folder));
  parts.tokenizer = std::move(tokenizer);
  if (!parts.tokenizer) return parts;
  TROUPE_TRY(chat, open_if_there<text::chat_template>(folder));
  parts.chat = std::move(chat);
  // A tokenizer whose tokens stand for no bytes answers, but in no form.
  auto grammars = text::grammar_factory::make(
      *parts.tokenizer, {.eos_token_ids = opened.config.eos_token_ids,
                         .vocab_size = static_cast<std::int32_t>(opened.config.vocab_size)});
  if (grammars) {
    parts.grammars =
        std::make_unique<text::grammar_cache>(*std::move(grammars), text::grammar_cache_bounds{});
  }
  return parts;
}

// Rank 0's parts, in the order in which they are built. They hold each other's threads: the process
// ends with all of them alive.
class leader_process {
 public:
  leader_process(const serve_flags& flags, const rank_parts& parts, const base::logger& log)
      : flags_(flags), parts_(parts), log_(log) {}

  base::result<void> start(rank_inheritance& inherited) {
    TROUPE_TRY(text, open_text(parts_.opened));
    text_ = std::move(text);
    TROUPE_TRY(setup, set_up_rank(parts_, inherited));
    serving::served_model model = describe_model(flags_, parts_.opened, setup.limits);
    describe_answers(flags_, text_, model);
    engine::engine_options engine = engine_options_of(flags_.model, parts_.opened, setup.limits);
    engine.make_constraint = constraints_of(text_.grammars.get());
    driver_ = std::make_unique<serving_driver>(
        serving_driver_options{.leader = {.engine = std::move(engine)},
                               .shape = setup.process.host.shape,
                               .data_plane = setup.topology.data_plane,
                               .profile = parts_.opened.profile,
                               .model = model.names.front(),
                               .shares = setup.shares,
                               .on_drain = [this] { api_->drain(); }});
    TROUPE_TRY_VOID(make_api(std::move(model)));
    TROUPE_TRY(process, actors::gang_process::start(std::move(setup.process), log_, driver_.get()));
    process_ = std::move(process);
    return open_http();
  }

  // Ends the process when the gang does.
  [[noreturn]] void serve() {
    constexpr std::chrono::milliseconds last_answers{2000};
    const schemas::give_up last = process_->wait();
    if (last.exit_code == 0) {
      http_->stop(last_answers);
    } else {
      log_.error(last.reason);
    }
    end_process(static_cast<exit_code>(last.exit_code));
  }

 private:
  base::result<void> make_api(serving::served_model model) {
    TROUPE_TRY(keys, read_api_keys(flags_.api_key_file));
    serving::openai_server_options options{.gang = driver_->service(),
                                           .tokenizer = text_.tokenizer.get(),
                                           .chat = text_.chat.get(),
                                           .grammars = text_.grammars.get(),
                                           .model = std::move(model),
                                           .keys = std::move(keys),
                                           .open_metrics = flags_.open_metrics,
                                           .seams = {},
                                           .version = TROUPE_VERSION,
                                           .build_id = build_id()};
    options.seams.wall_clock = unix_time;
    options.supervisor_lives = [this] {
      return process_->supervisor_silence() < supervisor_silence_max;
    };
    TROUPE_TRY(api, serving::openai_server::make(std::move(options)));
    api_ = std::move(api);
    return {};
  }

  base::result<void> open_http() {
    const base::fd listening(supervisor::rank_descriptors::listening);
    net::http_server_options options{.listening = listening.get(), .handler = {}};
    options.limits.connections_max =
        connections_within_limits(options.limits.connections_max, log_);
    options.handler = [this](net::http_request request, std::shared_ptr<net::response> response) {
      api_->handle(std::move(request), std::move(response));
    };
    options.error_body = serving::openai_server::error_body;
    options.wall_clock = [] { return std::time_t{unix_time().count()}; };
    TROUPE_TRY(http, net::http_server::start(std::move(options)));
    http_ = std::move(http);
    api_->attach(*http_);
    return {};
  }

  const serve_flags& flags_;
  const rank_parts& parts_;
  const base::logger& log_;
  text_parts text_;
  std::unique_ptr<serving_driver> driver_;
  std::unique_ptr<serving::openai_server> api_;
  std::unique_ptr<actors::gang_process> process_;
  std::unique_ptr<net::http_server> http_;
};

[[noreturn]] void run_rank(const serve_flags& flags, const rank_seat& seat) {
  const auto opened = open_model(flags.model, seat.rank);
  if (!opened) end_process(report(opened.error()));
  const rank_parts parts{
      .seat = seat, .model = flags.model, .gang = flags.gang, .opened = *opened, .load = {}};
  if (seat.rank != 0) run_worker_rank(parts);
  auto inherited = inherit(seat);
  if (!inherited) end_process(report(inherited.error()));
  const auto log = make_rank_log(parts);
  if (!log) end_process(report(log.error()));
  if (opened->device) {
    log->info("computes on " + opened->device->describe());
  } else if (!opened->why_cpu.empty()) {
    log->info("computes on the CPU: " + opened->why_cpu);
  }
  leader_process leader(flags, parts, *log);
  if (const auto started = leader.start(*inherited); !started) end_process(report(started.error()));
  leader.serve();
}

void add_flags(CLI::App& parser, serve_flags& flags) {
  add_model_flags(parser, flags.model);
  add_gang_flags(parser, flags.gang);
  parser.add_option("--host", flags.host,
                    "address of HTTP [127.0.0.1; with several machines the gang's]");
  parser.add_option("--port", flags.port, "of HTTP; 0 picks a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  parser.add_option("--api-key-file", flags.api_key_file, "one key a line, or name:sha256")
      ->type_name("FILE");
  parser.add_option("--tool-call-parser", flags.tool_call_parser, "how the model writes calls")
      ->check(CLI::IsMember({"auto", "none", "hermes", "llama3_json", "mistral"}))
      ->capture_default_str();
  parser.add_flag("--enable-auto-tool-choice", flags.auto_tool_choice, "always on");
  parser.add_option("--reasoning-parser", flags.reasoning_parser, "how it marks what it thinks")
      ->check(CLI::IsMember({"auto", "none", "qwen3", "deepseek_r1"}))
      ->capture_default_str();
  parser.add_option("--served-model-name", flags.served_model_name, "in answers [MODEL]")
      ->allow_extra_args(false);
  parser.add_option("--drain-timeout", flags.drain_timeout_s, "s for open requests after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  parser.add_flag("--open-metrics", flags.open_metrics,
                  "health, readiness and metrics without a key also from other machines");
  add_sources(parser);
}

}  // namespace

command add_serve(CLI::App& program, const invocation& called) {
  auto flags = std::make_shared<serve_flags>();
  CLI::App* parser = program.add_subcommand("serve", "Serve a model to OpenAI clients over HTTP");
  add_flags(*parser, *flags);
  return {parser, [flags, parser, &called] {
            if (const auto done = apply_group(*parser, *flags, !called.seat); !done) {
              return report(done.error(), exit_code::usage);
            }
            if (called.seat) run_rank(*flags, *called.seat);
            return launch(*flags, called);
          }};
}

}  // namespace troupe::cli
