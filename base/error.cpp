#include "base/error.hpp"

#include <array>

namespace troupe::base {

std::string_view to_string(error_code code) noexcept {
  static constexpr std::array<std::string_view, 17> names = {"ok",
                                                             "cancelled",
                                                             "unknown",
                                                             "invalid_argument",
                                                             "deadline_exceeded",
                                                             "not_found",
                                                             "already_exists",
                                                             "permission_denied",
                                                             "resource_exhausted",
                                                             "failed_precondition",
                                                             "aborted",
                                                             "out_of_range",
                                                             "unimplemented",
                                                             "internal",
                                                             "unavailable",
                                                             "data_loss",
                                                             "unauthenticated"};
  const auto index = static_cast<std::size_t>(code);
  return index < names.size() ? names[index] : "unknown";
}

tl::unexpected<error> fail(error_code code, std::string_view origin, std::string message,
                           bool retryable) {
  return tl::unexpected(error{code, std::move(message), origin, retryable});
}

}  // namespace troupe::base
