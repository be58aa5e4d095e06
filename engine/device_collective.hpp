// A group whose buffers lie in a device's memory: carries them through host memory to a group of
// any transport, and back. With one rank nothing moves.
//
// Gathers, sums and point-to-point of a step take device addresses; so do their results. Used by
// the thread of the rank's queue.
#pragma once

#include <memory>
#include <vector>

#include "kernels/queue.hpp"
#include "transport/collective.hpp"

namespace troupe::engine {

// Lifetime: `inner` and `queue` outlive the group.
[[nodiscard]] std::unique_ptr<transport::collective> through_host(transport::collective& inner,
                                                                  kernels::queue& queue);

}  // namespace troupe::engine
