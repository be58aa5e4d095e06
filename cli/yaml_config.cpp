#include "cli/yaml_config.hpp"

#include "cli/bounded_file.hpp"

#include <yaml-cpp/yaml.h>

#include <cctype>
#include <vector>

namespace troupe::cli {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw CLI::FileError("--config: " + what, CLI::ExitCodes::FileError);
}

YAML::Node load_map(const std::string& path) {
  const auto text = read_bounded_file("--config", path, config_limits::file_bytes_max);
  if (!text) throw CLI::FileError(text.error().message, CLI::ExitCodes::FileError);
  YAML::Node root;
  try {
    root = YAML::Load(*text);
  } catch (const YAML::Exception& error) {
    refuse(std::string("not YAML: ") + error.what());
  }
  if (!root.IsNull() && !root.IsMap()) {
    refuse("the top of " + path + " is not a map of flag names to values");
  }
  return root;
}

std::vector<std::string> values_of(const std::string& key, const YAML::Node& node) {
  std::vector<std::string> values;
  if (node.IsScalar()) return {node.as<std::string>()};
  const std::string wrong = key + " is neither a value nor a list of values";
  if (!node.IsSequence()) refuse(wrong);
  for (const YAML::Node& element : node) {
    if (!element.IsScalar()) refuse(wrong);
    values.push_back(element.as<std::string>());
  }
  return values;
}

}  // namespace

std::string environment_name(const std::string& flag) {
  std::string name = "TROUPE_";
  for (const char letter : flag) {
    name +=
        letter == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  }
  return name;
}

void add_sources(CLI::App& parser) {
  parser.add_option("--config", "YAML file with the flags' names")->type_name("FILE");
  for (CLI::Option* option : parser.get_options()) {
    if (option->get_lnames().empty() || option->get_name() == "--help") continue;
    option->envname(environment_name(option->get_lnames().front()));
  }
}

void apply_config(CLI::App& parser) {
  const CLI::Option* const config = parser.get_option("--config");
  if (config->count() == 0) return;
  for (const auto& entry : load_map(config->results().front())) {
    if (!entry.first.IsScalar()) refuse("a key is not a flag's name");
    const auto key = entry.first.as<std::string>();
    CLI::Option* const option = parser.get_option_no_throw("--" + key);
    if (option == nullptr || option == config) throw CLI::ConfigError::Extras(key);
    const std::vector<std::string> values = values_of(key, entry.second);
    if (option->count() > 0) continue;  // the command line or the environment has it
    for (const std::string& value : values) {
      // A flag without a value: "ignore-eos: true" sets it, "false" leaves it.
      const bool flag = option->get_items_expected_max() == 0;
      option->add_result(flag ? option->get_flag_value("--" + key, value) : value);
    }
    option->run_callback();
  }
}

}  // namespace troupe::cli
