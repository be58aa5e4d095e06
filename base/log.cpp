#include "base/log.hpp"

#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <utility>

#include "base/line_writer.hpp"

namespace troupe::base {
namespace {

constexpr std::size_t text_bytes_max = 3072;  // with its prefix below line_writer::line_bytes_max

struct level_name {
  std::string_view name;
  log_level level;
  spdlog::level::level_enum theirs;
};
constexpr std::array<level_name, 5> level_names = {{
    {"debug", log_level::debug, spdlog::level::debug},
    {"info", log_level::info, spdlog::level::info},
    {"warning", log_level::warning, spdlog::level::warn},
    {"error", log_level::error, spdlog::level::err},
    {"off", log_level::off, spdlog::level::off},
}};

spdlog::level::level_enum theirs_of(log_level level) {
  for (const level_name& one : level_names) {
    if (one.level == level) return one.theirs;
  }
  return spdlog::level::off;
}

// One line whatever it is made of: no line breaks, no terminal sequences, whole UTF-8 characters.
std::string one_line(std::string_view text) {
  std::size_t length = std::min(text.size(), text_bytes_max);
  while (length < text.size() && length > 0 &&
         (static_cast<unsigned char>(text[length]) >> 6) == 2) {
    --length;
  }
  std::string line(text.substr(0, length));
  for (char& letter : line) {
    const auto code = static_cast<unsigned char>(letter);
    if (code < 0x20 || code == 0x7F) letter = ' ';
  }
  if (length < text.size()) line += " ...";
  return line;
}

class dropping_sink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit dropping_sink(int descriptor) : out_(descriptor) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (dropped_ > 0) {
      const std::string lost =
          fmt::format("({} lines before this one are lost: nobody read them)\n", dropped_);
      line.resize(line.size() - 1);
      line.push_back(' ');
      line.append(lost.data(), lost.data() + lost.size());
    }
    if (out_.write(std::string_view(line.data(), line.size()))) {
      dropped_ = 0;
    } else {
      ++dropped_;
    }
  }
  void flush_() override {}

 private:
  line_writer out_;
  std::uint64_t dropped_ = 0;
};

std::string doubled_percents(const std::string& text) {
  std::string all;
  for (const char letter : text) {
    all += letter;
    if (letter == '%') all += letter;
  }
  return all;
}

}  // namespace

struct logger::state {
  explicit state(std::shared_ptr<spdlog::logger> made) : out(std::move(made)) {}
  std::shared_ptr<spdlog::logger> out;
};

result<log_level> parse_log_level(std::string_view text) {
  for (const level_name& one : level_names) {
    if (one.name == text) return one.level;
  }
  return fail(error_code::invalid_argument, "base",
              fmt::format("log level '{}': one of debug, info, warning, error, off", text));
}

result<logger> logger::make(const log_options& options) {
  try {
    auto out = std::make_shared<spdlog::logger>(
        "troupe", std::make_shared<dropping_sink>(options.descriptor));
    std::string who = doubled_percents(one_line(options.role).substr(0, 64));
    if (options.rank) who += fmt::format(" rank {}", options.rank->value);
    out->set_formatter(std::make_unique<spdlog::pattern_formatter>(
        "%Y-%m-%dT%H:%M:%S.%eZ %l " + who + ": %v", spdlog::pattern_time_type::utc, "\n"));
    out->set_level(theirs_of(options.level));
    // Its own answer to an error is a line on stderr, which may block.
    out->set_error_handler([](const std::string&) {});
    return logger(std::make_unique<state>(std::move(out)));
  } catch (const std::exception& problem) {
    return fail(error_code::resource_exhausted, "base",
                fmt::format("cannot set up the log: {}", problem.what()));
  }
}

logger::logger(std::unique_ptr<state> made) : state_(std::move(made)) {}
logger::logger(logger&&) noexcept = default;
logger& logger::operator=(logger&&) noexcept = default;
logger::~logger() = default;

bool logger::writes(log_level level) const noexcept {
  return level != log_level::off && state_->out->should_log(theirs_of(level));
}

void logger::write(log_level level, std::string_view line) const noexcept {
  if (!writes(level)) return;
  try {
    state_->out->log(theirs_of(level), std::string_view(one_line(line)));
  } catch (...) {  // no memory: the line is lost, the process goes on
    return;
  }
}

}  // namespace troupe::base
