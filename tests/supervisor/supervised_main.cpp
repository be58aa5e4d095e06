// A supervisor as a process of its own, for tests that kill it: options come as name=value words.
// "ranks=" is handed to every rank, "rankN=" to that one, split at commas.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "base/log.hpp"
#include "base/memory_file.hpp"
#include "base/process.hpp"
#include "base/socket.hpp"
#include "base/tls.hpp"
#include "supervisor/supervisor.hpp"

namespace {

using namespace troupe;

class words {
 public:
  words(int count, char** values) {
    for (int at = 1; at < count; ++at) {
      const std::string word = values[at];
      const std::size_t equals = word.find('=');
      all_[word.substr(0, equals)] = equals == std::string::npos ? "" : word.substr(equals + 1);
    }
  }
  [[nodiscard]] bool has(const std::string& name) const { return all_.contains(name); }
  [[nodiscard]] std::string text(const std::string& name) const {
    const auto at = all_.find(name);
    return at == all_.end() ? std::string() : at->second;
  }
  [[nodiscard]] int number(const std::string& name, int otherwise) const {
    int value = otherwise;
    const std::string word = text(name);
    std::from_chars(word.data(), word.data() + word.size(), value);
    return value;
  }

 private:
  std::map<std::string, std::string> all_;
};

supervisor::rank_command command_of(const words& given, base::rank_id rank) {
  supervisor::rank_command command{
      .program = given.text("rank_program"),
      .arguments = {"supervisor_rank", "--node-rank", fmt::format("{}", rank.value),
                    fmt::format("parent={}", ::getpid()), "record=" + given.text("record")},
      .environment = {}};
  for (const std::string& list :
       {given.text("ranks"), given.text(fmt::format("rank{}", rank.value))}) {
    std::stringstream stream(list);
    for (std::string word; std::getline(stream, word, ',');) command.arguments.push_back(word);
  }
  return command;
}

base::result<void> add_link(const words& given, supervisor::options& options) {
  supervisor::node_link_options link{.node_rank = given.number("node_rank", 0),
                                     .nnodes = given.number("nnodes", 1),
                                     .leader_host = given.text("leader_host"),
                                     .build_id = given.text("build_id")};
  if (link.node_rank == 0) {
    TROUPE_TRY(
        listening,
        base::listen_on({.host = given.text("link_host"),
                         .port_first = static_cast<std::uint16_t>(given.number("link_port", 0))}));
    link.listening = std::move(listening.descriptor);
    std::ofstream(given.text("link_port_file") + ".new") << listening.port << '\n';
    if (std::rename((given.text("link_port_file") + ".new").c_str(),
                    given.text("link_port_file").c_str()) != 0) {
      return base::fail(base::error_code::internal, "tests", "no port file");
    }
  } else {
    link.leader_port = static_cast<std::uint16_t>(given.number("leader_port", 0));
  }
  options.link = std::move(link);
  return {};
}

base::result<supervisor::ended> run(const words& given, const base::logger& log) {
  supervisor::options options;
  options.command_of = [&](base::rank_id rank) { return command_of(given, rank); };
  options.world_size = given.number("world", 1);
  options.one_shot = given.has("one_shot");
  options.restarts.restarts = given.number("restarts", 8);
  options.drain_patience = std::chrono::milliseconds(given.number("drain_ms", 100'000));
  options.leave_patience = std::chrono::milliseconds(given.number("leave_ms", 2'000));
  options.state_dir = given.text("state_dir");
  options.name = given.text("name");
  if (given.has("no_segment")) {
    options.make_segment = [](base::epoch_id, int) -> base::result<supervisor::made_segment> {
      return base::fail(base::error_code::resource_exhausted, "tests", "no memory left");
    };
  }
  if (given.has("http")) {
    TROUPE_TRY(listening, base::listen_on({.host = "127.0.0.1"}));
    options.url = fmt::format("http://127.0.0.1:{}", listening.port);
    options.http = std::move(listening.descriptor);
  }
  if (given.has("credentials")) {
    TROUPE_TRY(made, base::make_gang_credentials());
    options.credentials = std::move(made);
  }
  if (given.has("gang_tls")) {
    TROUPE_TRY(read, base::read_gang_credentials(given.text("gang_tls")));
    options.credentials = std::move(read);
  }
  if (given.has("nnodes")) TROUPE_TRY_VOID(add_link(given, options));
  if (given.has("subreaper")) TROUPE_TRY_VOID(base::adopt_orphans());
  return supervisor::run(std::move(options), log);
}

}  // namespace

int main(int count, char** values) {
  const words given(count, values);
  const auto log = base::logger::make({.role = "supervisor", .level = base::log_level::debug});
  if (!log) return 90;
  const auto end = run(given, *log);
  if (!end) {
    log->error(end.error().message);
    return 91;
  }
  if (!end->cause.empty()) log->error("END " + end->cause);
  return end->exit_code;
}
