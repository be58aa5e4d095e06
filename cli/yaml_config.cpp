#include "cli/yaml_config.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <istream>
#include <string>
#include <vector>

namespace troupe::cli {
namespace {

// CLI11 would let a file win over the environment; here a key whose variable is set is passed over.
class yaml_format final : public CLI::Config {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::string text(config_limits::file_bytes_max + 1, '\0');
    input.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(input.gcount()));
    if (text.size() > config_limits::file_bytes_max) {
      throw CLI::FileError("--config: the file is larger than 1 MiB", CLI::ExitCodes::FileError);
    }
    YAML::Node root;
    try {
      root = YAML::Load(text);
    } catch (const YAML::Exception& error) {
      throw CLI::FileError(std::string("--config: not YAML: ") + error.what(),
                           CLI::ExitCodes::FileError);
    }
    std::vector<CLI::ConfigItem> found;
    if (root.IsNull()) return found;
    if (!root.IsMap()) {
      throw CLI::FileError("--config: the top of the file is not a map of flag names to values",
                           CLI::ExitCodes::FileError);
    }
    for (const auto& entry : root) found.push_back(item_of(entry.first, entry.second));
    std::erase_if(found, [](const CLI::ConfigItem& item) {
      return std::getenv(environment_name(item.name).c_str()) != nullptr;
    });
    return found;
  }

  std::string to_config(const CLI::App* /*app*/, bool /*defaults*/, bool /*description*/,
                        std::string /*prefix*/) const override {
    return {};
  }

 private:
  static CLI::ConfigItem item_of(const YAML::Node& key, const YAML::Node& value) {
    CLI::ConfigItem item;
    item.name = key.as<std::string>();
    if (value.IsScalar()) {
      item.inputs = {value.as<std::string>()};
    } else if (value.IsSequence() &&
               std::all_of(value.begin(), value.end(),
                           [](const YAML::Node& element) { return element.IsScalar(); })) {
      for (const YAML::Node& element : value) item.inputs.push_back(element.as<std::string>());
    } else {
      throw CLI::FileError("--config: " + item.name + " is neither a value nor a list of values",
                           CLI::ExitCodes::FileError);
    }
    return item;
  }
};

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
  for (CLI::Option* option : parser.get_options()) {
    if (option->get_lnames().empty() || option->get_name() == "--help") continue;
    option->envname(environment_name(option->get_lnames().front()));
  }
  parser.set_config("--config", "", "YAML file with the flags' names", false)
      ->envname("TROUPE_CONFIG")
      ->type_name("FILE");
  parser.config_formatter(std::make_shared<yaml_format>());
  parser.allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace troupe::cli
