// This machine's address on the gang's network: the one from which the leader's name is reached.
#pragma once

#include <chrono>
#include <string>

#include "base/error.hpp"

namespace troupe::cli {

// Waits for a name that is not there yet (pods in any order, a DNS that is slow or empty), with a
// line on stderr when the reason changes and every 10 s. Call it before any other thread exists.
// Errors: deadline_exceeded (`patience` is over); cancelled (SIGTERM or SIGINT came).
[[nodiscard]] base::result<std::string> own_address_towards(const std::string& leader,
                                                            std::chrono::seconds patience);

}  // namespace troupe::cli
