#include "cli/usage.hpp"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

namespace troupe::cli {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::string nearest(std::string_view wrong, const std::vector<std::string>& names) {
  std::string best;
  std::size_t least = wrong.size();  // nothing in common is no suggestion
  for (const std::string& name : names) {
    const std::size_t distance = edit_distance(wrong, name);
    if (distance < least) {
      least = distance;
      best = name;
    }
  }
  return best;
}

std::vector<std::string> flag_names(const CLI::App& parser) {
  std::vector<std::string> names;
  for (const CLI::Option* option : parser.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& program) {
  std::vector<std::string> names;
  for (const CLI::App* command : program.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

// The first word on the command line that is a flag nobody knows.
std::optional<std::string> unknown_flag(const CLI::App& chosen, int argc, const char* const* argv) {
  const std::vector<std::string> names = flag_names(chosen);
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word == "--") break;
    if (word.size() < 3 || word.rfind("--", 0) != 0) continue;
    word = word.substr(0, word.find('='));
    if (std::find(names.begin(), names.end(), word) == names.end()) return word;
  }
  return std::nullopt;
}

struct place {
  std::string words;  // "troupe serve"
  int depth = 0;      // of them, without the program's own
};

place place_of(const CLI::App& chosen) {
  if (chosen.get_parent() == nullptr) return {.words = "troupe", .depth = 0};
  const place above = place_of(*chosen.get_parent());
  return {.words = above.words + " " + chosen.get_name(), .depth = above.depth + 1};
}

}  // namespace

const CLI::App& chosen_command(const CLI::App& program, int argc, const char* const* argv) {
  const CLI::App* chosen = &program;
  for (int i = 1; i < argc; ++i) {
    const auto named = chosen->get_subcommands(
        [&](const CLI::App* command) { return command->check_name(argv[i]); });
    if (named.empty()) break;
    chosen = named.front();
  }
  return *chosen;
}

std::string usage_line(const CLI::ParseError& error, const CLI::App& chosen, int argc,
                       const char* const* argv) {
  const auto [where, depth] = place_of(chosen);
  if (const auto* config = dynamic_cast<const CLI::ConfigError*>(&error)) {
    const std::string text = config->what();  // "INI was not able to parse KEY"
    const std::string key = text.substr(text.rfind(' ') + 1);
    return where + ": unknown key \"" + key + "\" in the --config file; did you mean \"" +
           nearest("--" + key, flag_names(chosen)).substr(2) + "\"?";
  }
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr ||
      dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    if (const auto flag = unknown_flag(chosen, argc, argv)) {
      const std::string suggestion = nearest(*flag, flag_names(chosen));
      return where + ": unknown flag " + *flag +
             (suggestion.empty() ? "" : "; did you mean " + suggestion + "?");
    }
    if (const auto commands = command_names(chosen); !commands.empty() && argc > depth + 1) {
      const char* const wrong = argv[depth + 1];
      return where + ": unknown command \"" + wrong + "\"; did you mean \"" +
             nearest(wrong, commands) + "\"?";
    }
  }
  return where + ": " + error.what() + " (see " + where + " --help)";
}

}  // namespace troupe::cli
