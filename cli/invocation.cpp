#include "cli/invocation.hpp"

#include <charconv>
#include <cstring>

namespace troupe::cli {
namespace {

constexpr const char* program_name = "troupe";
constexpr const char* rank_command = "rank";

tl::unexpected<base::error> refuse(const std::string& what) {
  return base::fail(base::error_code::invalid_argument, "cli",
                    "troupe rank is started by troupe serve, not by hand: " + what);
}

template <class Integer>
bool read_integer(const std::string& text, Integer& value) {
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && stop == text.data() + text.size() && value >= 0;
}

bool set(rank_seat& seat, const std::string& flag, const std::string& value) {
  if (flag == "--node-rank") return read_integer(value, seat.rank);
  if (flag == "--parent") return read_integer(value, seat.parent);
  if (flag == "--positions") return read_integer(value, seat.positions);
  if (flag == "--sequences") return read_integer(value, seat.sequences);
  std::string* const text = flag == "--gang-host" ? &seat.gang_host
                            : flag == "--prompt"  ? &seat.prompt_file
                                                  : nullptr;
  if (text == nullptr) return false;
  *text = value;
  return true;
}

}  // namespace

base::result<invocation> parse_invocation(int argc, const char* const* argv) {
  invocation made;
  int at = 1;
  if (argc > 1 && std::strcmp(argv[1], rank_command) == 0) {
    made.seat.emplace();
    for (at = 2; at < argc && std::strcmp(argv[at], "--") != 0; at += 2) {
      if (at + 1 >= argc || !set(*made.seat, argv[at], argv[at + 1])) {
        return refuse(std::string("unexpected ") + argv[at]);
      }
    }
    if (at >= argc || made.seat->parent == 0) return refuse("no command follows");
    ++at;
  }
  made.words.assign(argv + at, argv + argc);
  return made;
}

std::vector<std::string> rank_arguments(const rank_seat& seat,
                                        const std::vector<std::string>& words) {
  std::vector<std::string> arguments = {program_name, rank_command, "--node-rank",
                                        std::to_string(seat.rank)};
  const auto add = [&](const char* flag, const std::string& value) {
    if (value.empty() || value == "0") return;
    arguments.emplace_back(flag);
    arguments.push_back(value);
  };
  add("--parent", std::to_string(seat.parent));
  add("--positions", std::to_string(seat.positions));
  add("--sequences", std::to_string(seat.sequences));
  add("--gang-host", seat.gang_host);
  add("--prompt", seat.prompt_file);
  arguments.emplace_back("--");
  arguments.insert(arguments.end(), words.begin(), words.end());
  return arguments;
}

}  // namespace troupe::cli
