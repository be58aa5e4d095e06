// Errors of every folder: a canonical code, one clear line, where it arose, whether to try again.
//
// No exception crosses a folder's interface: a function that can fail returns base::result<T>.
//
//   base::result<int> parse(std::string_view text) {
//     if (text.empty()) return base::fail(base::error_code::invalid_argument, "cli", "empty
//     number");
//     ...
//   }
//   TROUPE_TRY(value, parse(text));   // returns the error to the caller, or names the value
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace troupe::base {

// The canonical codes of gRPC and Abseil, in their order; the comment says when to use which.
enum class error_code : std::uint8_t {
  cancelled = 1,            // the caller went away or asked to stop
  unknown = 2,              // a library gave no reason
  invalid_argument = 3,     // wrong whatever the state: bad flag, field or file content
  deadline_exceeded = 4,    // not done in the time given
  not_found = 5,            // a named thing does not exist
  already_exists = 6,       // a named thing exists and must not
  permission_denied = 7,    // known caller, not allowed
  resource_exhausted = 8,   // a limit of this process or tenant is reached: memory, queue, quota
  failed_precondition = 9,  // fine in itself, refused in this state or on this machine
  aborted = 10,             // the epoch ended under the call
  out_of_range = 11,        // past a valid end: position, index
  unimplemented = 12,       // a feature that is known and not built
  internal = 13,            // an invariant broke: our defect
  unavailable = 14,         // try again elsewhere or later
  data_loss = 15,           // bytes are missing or corrupt
  unauthenticated = 16,     // no valid identity
};

// The code's name as it appears in logs and JSON, e.g. "invalid_argument".
[[nodiscard]] std::string_view to_string(error_code code) noexcept;

struct error {
  error_code code = error_code::unknown;
  std::string message;      // one line: what, where, how to mend it
  std::string_view origin;  // the folder it arose in; a string literal
  bool retryable = false;   // the same call may succeed later without a change
};

template <class T>
using result = tl::expected<T, error>;

// Makes the failed result: `return fail(code, "models", fmt::format(...));`
[[nodiscard]] tl::unexpected<error> fail(error_code code, std::string_view origin,
                                         std::string message, bool retryable = false);

}  // namespace troupe::base

#define TROUPE_CONCAT_INNER(a, b) a##b
#define TROUPE_CONCAT(a, b) TROUPE_CONCAT_INNER(a, b)

// Evaluates a result<T>; on error returns it from the enclosing function, else names the value.
#define TROUPE_TRY(name, expression)                                          \
  auto TROUPE_CONCAT(name, _result) = (expression);                           \
  if (!TROUPE_CONCAT(name, _result)) {                                        \
    return ::tl::unexpected(std::move(TROUPE_CONCAT(name, _result)).error()); \
  }                                                                           \
  auto& name = *TROUPE_CONCAT(name, _result)

// The same for result<void>.
#define TROUPE_TRY_VOID(expression)                         \
  if (auto try_result = (expression); !try_result) {        \
    return ::tl::unexpected(std::move(try_result).error()); \
  }                                                         \
  static_assert(true, "needs a semicolon")
