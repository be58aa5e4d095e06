// troupe inspect MODEL: what it is, what each rank would hold, what would be refused and why.
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/layout_report.hpp"
#include "cli/model_flags.hpp"
#include "cli/yaml_config.hpp"
#include "models/float8_scales.hpp"

namespace troupe::cli {
namespace {

struct inspect_flags {
  model_flags model;
  std::string output = "text";
};

std::uint64_t parameters(const models::checkpoint& files) {
  std::uint64_t elements = 0;
  for (const models::tensor_info& tensor : files.tensors()) {
    if (tensor.name.ends_with(models::float8_scale_suffix)) continue;
    elements += tensor.bytes / std::max<std::size_t>(1, size_of(tensor.dtype));
  }
  return elements;
}

std::vector<std::string> profiles(const opened_model& opened) {
  std::vector<std::string> names;
  for (const auto path : kernels::supported_paths(opened.profile.weights)) {
    kernels::numerics_profile profile = opened.profile;
    profile.path = path;
    if (!is_integer(profile.kept)) profile.kept = kernels::quantisation::none;
    names.push_back(to_string(profile));
  }
  if (opened.devices > 0) names.insert(names.begin(), to_string(opened.profile));
  return names;
}

nlohmann::ordered_json layout_json(const layout_report& layout) {
  nlohmann::ordered_json entry = {{"tensor_parallel_size", layout.tp_size},
                                  {"pipeline_parallel_size", layout.pp_size}};
  if (!layout.refused.empty()) {
    entry["refused"] = layout.refused;
    return entry;
  }
  entry["ranks"] = nlohmann::ordered_json::array();
  for (std::size_t rank = 0; rank < layout.ranks.size(); ++rank) {
    entry["ranks"].push_back({{"rank", rank},
                              {"weight_bytes", layout.ranks[rank].weight_bytes},
                              {"scratch_bytes", layout.ranks[rank].scratch_bytes},
                              {"kv_bytes_per_token", layout.ranks[rank].kv_bytes_per_token}});
  }
  return entry;
}

void print_json(const opened_model& opened, const std::vector<layout_report>& layouts) {
  const models::model_config& config = opened.config;
  nlohmann::ordered_json output = {{"architecture", config.architecture},
                                   {"parameters", parameters(opened.files)},
                                   {"num_hidden_layers", config.num_hidden_layers},
                                   {"hidden_size", config.hidden_size},
                                   {"num_attention_heads", config.num_attention_heads},
                                   {"num_key_value_heads", config.num_key_value_heads},
                                   {"head_dim", config.head_dim},
                                   {"vocab_size", config.vocab_size},
                                   {"max_position_embeddings", config.max_position_embeddings},
                                   {"dtype", weights_name(opened.profile)},
                                   {"numerics", to_string(opened.profile)},
                                   {"numerics_available", profiles(opened)}};
  output["layouts"] = nlohmann::ordered_json::array();
  for (const layout_report& layout : layouts) output["layouts"].push_back(layout_json(layout));
  std::cout << output.dump(2) << '\n';
}

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1024.0 * 1024.0); }

void print_text(const opened_model& opened, const std::vector<layout_report>& layouts) {
  const models::model_config& config = opened.config;
  const auto number = [](std::int64_t value) { return static_cast<long long>(value); };
  std::printf("%s, %.3f billion parameters in %zu file%s\n", config.architecture.c_str(),
              static_cast<double>(parameters(opened.files)) / 1e9, opened.files.files().size(),
              opened.files.files().size() == 1 ? "" : "s");
  std::printf(
      "layers %lld, hidden_size %lld, query heads %lld, KV heads %lld, head_dim %lld, "
      "vocabulary %lld, positions %lld\n",
      number(config.num_hidden_layers), number(config.hidden_size),
      number(config.num_attention_heads), number(config.num_key_value_heads),
      number(config.head_dim), number(config.vocab_size), number(config.max_position_embeddings));
  std::printf("numerics %s\n", to_string(opened.profile).c_str());
  for (const std::string& name : profiles(opened)) std::printf("  available: %s\n", name.c_str());
  std::printf("\n%-10s %-6s %14s %14s %18s\n", "tp x pp", "rank", "weights MiB", "scratch MiB",
              "KV bytes/token");
  for (const layout_report& layout : layouts) {
    const std::string name =
        std::to_string(layout.tp_size) + " x " + std::to_string(layout.pp_size);
    if (!layout.refused.empty()) {
      std::printf("%-10s refused: %s\n", name.c_str(), layout.refused.c_str());
      continue;
    }
    for (std::size_t rank = 0; rank < layout.ranks.size(); ++rank) {
      std::printf("%-10s %-6zu %14.1f %14.1f %18lld\n", rank == 0 ? name.c_str() : "", rank,
                  mib(layout.ranks[rank].weight_bytes), mib(layout.ranks[rank].scratch_bytes),
                  number(layout.ranks[rank].kv_bytes_per_token));
    }
  }
  std::printf(
      "\nA rank's memory: weights + KV bytes/token x tokens cached + what of the scratch it "
      "touches + up to 100 MiB.\n");
}

exit_code run_inspect(const inspect_flags& flags) {
  const auto opened = open_model(flags.model);
  if (!opened) return report(opened.error());
  std::vector<std::pair<int, int>> shapes = {{1, 1}, {2, 1}, {4, 1}, {8, 1}};
  const std::pair asked{flags.model.tensor_parallel_size, flags.model.pipeline_parallel_size};
  if (asked.second > 1) shapes.push_back(asked);
  std::vector<layout_report> layouts;
  for (const auto& [tp_size, pp_size] : shapes) {
    auto layout = report_layout(*opened, flags.model, tp_size, pp_size);
    if (!layout) return report(layout.error());
    layouts.push_back(*std::move(layout));
  }
  if (flags.output == "json") {
    print_json(*opened, layouts);
  } else {
    print_text(*opened, layouts);
  }
  return std::cout.flush() ? exit_code::fine : exit_code::failed;
}

}  // namespace

command add_inspect(CLI::App& program) {
  auto flags = std::make_shared<inspect_flags>();
  CLI::App* parser =
      program.add_subcommand("inspect", "Show what a model needs and what is refused");
  add_model_flags(*parser, flags->model);
  parser->add_option("--output", flags->output, "what stdout gets")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  add_sources(*parser);
  return {parser, [flags] { return run_inspect(*flags); }};
}

}  // namespace troupe::cli
