// Is there a member of the gang at that address? Asked before the actor framework dials, which
// connects and shakes hands in blocking calls and cannot say why it was refused. Internal to
// actors/.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/error.hpp"
#include "base/tls.hpp"

namespace troupe::actors {

// Connects, authenticates both ways, and waits for the first byte, which a control plane sends by
// itself once it has taken our certificate. Closes the connection again. Blocks for `patience` at
// most. Errors: unavailable, deadline_exceeded, unauthenticated (why).
[[nodiscard]] base::result<void> probe_member(const base::tls_context& context,
                                              const std::string& numeric_host, std::uint16_t port,
                                              std::chrono::milliseconds patience);

}  // namespace troupe::actors
