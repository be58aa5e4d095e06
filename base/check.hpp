// TROUPE_CHECK: an assertion that stays on in release. For programmer error only, never for what a
// user, a file or the wire can cause. Prints the expression and where, then aborts.
#pragma once

namespace troupe::base {
[[noreturn]] void check_failed(const char* expression, const char* file, int line) noexcept;
}  // namespace troupe::base

#define TROUPE_CHECK(condition)                        \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::troupe::base::check_failed(#condition, __FILE__, __LINE__))
