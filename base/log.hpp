// Log lines on stderr: one line each, with time, level, role and rank; never waits for the reader.
//
// A line that does not fit into a full pipe is dropped and counted, and the next one that fits says
// how many were. Built once by main() and handed down by reference; any thread may write.
//
//   TROUPE_TRY(log, base::logger::make({.role = "worker", .rank = base::rank_id{3}}));
//   log.info(fmt::format("loaded {} GiB", size));
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace troupe::base {

enum class log_level : std::uint8_t { debug, info, warning, error, off };

// Errors: invalid_argument for anything but debug, info, warning, error, off.
[[nodiscard]] result<log_level> parse_log_level(std::string_view text);

struct log_options {
  std::string role;                   // "supervisor", "leader", "worker", ...
  std::optional<rank_id> rank = {};   // none: the line names no rank
  log_level level = log_level::info;  // lines below it are not written
  int descriptor = 2;                 // borrowed, outlives the logger
};

class logger {
 public:
  [[nodiscard]] static result<logger> make(const log_options& options);
  logger(logger&&) noexcept;
  logger& operator=(logger&&) noexcept;
  ~logger();

  // Control characters in `line` are replaced, the rest beyond 3 KiB is cut.
  void write(log_level level, std::string_view line) const noexcept;
  void debug(std::string_view line) const noexcept { write(log_level::debug, line); }
  void info(std::string_view line) const noexcept { write(log_level::info, line); }
  void warning(std::string_view line) const noexcept { write(log_level::warning, line); }
  void error(std::string_view line) const noexcept { write(log_level::error, line); }
  [[nodiscard]] bool writes(log_level level) const noexcept;

 private:
  struct state;
  explicit logger(std::unique_ptr<state> made);
  std::unique_ptr<state> state_;
};

}  // namespace troupe::base
