#include "supervisor/health.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

#include "supervisor/health_socket.hpp"

namespace troupe::supervisor {
namespace {

using base::error_code;

constexpr std::string_view first_line = "troupe health 1";
constexpr std::array<const char*, 7> phases = {"starting",          "seeking_leader", "loading",
                                               "waiting_for_ranks", "connecting",     "serving",
                                               "draining"};

std::string one_line(std::string text) {
  for (char& letter : text) {
    if (static_cast<unsigned char>(letter) < 0x20) letter = ' ';
  }
  return text.substr(0, 1024);
}

// Cuts what stands before `end` off the text.
std::string_view take(std::string_view& text, char end) {
  const std::size_t at = text.find(end);
  const std::string_view word = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return word;
}

template <class Integer>
bool number(std::string_view& text, Integer& value, int base = 10) {
  const std::string_view word = take(text, ' ');
  const char* end = word.data() + word.size();
  const auto [stop, problem] = std::from_chars(word.data(), end, value, base);
  return problem == std::errc{} && stop == end;
}

bool parse_rank(std::string_view line, rank_status& one) {
  int running = 0;
  const bool whole = number(line, one.rank.value) && number(line, running);
  const std::string_view phase = take(line, ' ');
  std::size_t index = 0;
  while (index < phases.size() && phase != phases[index]) ++index;
  if (!whole || index == phases.size() || !number(line, one.epoch.incarnation, 16) ||
      !number(line, one.epoch.number) || !number(line, one.restarts)) {
    return false;
  }
  one.running = running != 0;
  one.phase = static_cast<schemas::rank_phase>(index);
  one.detail = line;
  return true;
}

base::result<std::string> answer_of(const base::fd& socket, std::chrono::milliseconds patience) {
  pollfd ready{socket.get(), POLLIN, 0};
  int outcome = 0;
  do {
    outcome = ::poll(&ready, 1, static_cast<int>(patience.count()));
  } while (outcome < 0 && errno == EINTR);
  if (outcome <= 0) {
    return base::fail(error_code::deadline_exceeded, "supervisor",
                      fmt::format("the supervisor did not answer within {} ms: it hangs or is "
                                  "stopped",
                                  patience.count()));
  }
  std::string text(health_text_bytes_max, '\0');
  const ssize_t length = ::recv(socket.get(), text.data(), text.size(), MSG_DONTWAIT);
  text.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  return text;
}

}  // namespace

const char* to_string(schemas::rank_phase phase) noexcept {
  const auto index = static_cast<std::size_t>(phase);
  return index < phases.size() ? phases[index] : "unknown";
}

std::string to_text(const health_status& status) {
  std::string text =
      fmt::format("{}\njoined {}\nepoch {:x} {}\nwhy {}\n", first_line, status.joined ? 1 : 0,
                  status.epoch.incarnation, status.epoch.number, one_line(status.why));
  for (const rank_status& one : status.ranks) {
    text += fmt::format("rank {} {} {} {:x} {} {} {}\n", one.rank.value, one.running ? 1 : 0,
                        to_string(one.phase), one.epoch.incarnation, one.epoch.number, one.restarts,
                        one_line(one.detail));
  }
  return text;
}

base::result<health_status> parse_health(std::string_view text) {
  const auto refuse = [](std::string_view line) {
    return base::fail(error_code::invalid_argument, "supervisor",
                      fmt::format("what answered is no supervisor of this version: '{}'",
                                  one_line(std::string(line)).substr(0, 80)));
  };
  if (const auto line = take(text, '\n'); line != first_line) return refuse(line);
  health_status status;
  while (!text.empty()) {
    const std::string_view line = take(text, '\n');
    std::string_view rest = line;
    const std::string_view word = take(rest, ' ');
    bool good = true;
    if (word == "joined") {
      good = rest == "0" || rest == "1";
      status.joined = rest == "1";
    } else if (word == "epoch") {
      good = number(rest, status.epoch.incarnation, 16) && number(rest, status.epoch.number);
    } else if (word == "why") {
      status.why = rest;
    } else if (word == "rank") {
      good = parse_rank(rest, status.ranks.emplace_back());
    } else {
      good = false;
    }
    if (!good) return refuse(line);
  }
  return status;
}

base::result<health_status> ask_health(const health_question& question) {
  const std::filesystem::path run = std::filesystem::path(question.state_dir) / "run";
  const auto none = [&] {
    return base::fail(error_code::not_found, "supervisor",
                      fmt::format("no supervisor runs under {}: start `troupe serve`, or name its "
                                  "--state-dir",
                                  run.string()));
  };
  std::error_code problem;
  if (!std::filesystem::exists(run, problem)) return none();
  TROUPE_TRY(folder, health_folder::open(run));
  std::vector<std::pair<std::string, base::fd>> alive;
  for (const std::string& name : health_folder::names(folder)) {
    if (!question.name.empty() && name != question.name) continue;
    auto socket = health_folder::connect(folder, name);
    if (!socket && socket.error().code != error_code::not_found) {
      return tl::unexpected(std::move(socket).error());
    }
    if (socket) alive.emplace_back(name, std::move(*socket));
  }
  if (alive.empty() && !question.name.empty()) {
    return base::fail(
        error_code::not_found, "supervisor",
        fmt::format("no supervisor named '{}' runs under {}", question.name, run.string()));
  }
  if (alive.empty()) return none();
  if (alive.size() > 1) {
    std::string names;
    for (const auto& [name, socket] : alive) names += (names.empty() ? "" : ", ") + name;
    return base::fail(error_code::failed_precondition, "supervisor",
                      fmt::format("{} supervisors run under {}: name one of {}", alive.size(),
                                  run.string(), names));
  }
  TROUPE_TRY(text, answer_of(alive.front().second, question.patience));
  return parse_health(text);
}

}  // namespace troupe::supervisor
