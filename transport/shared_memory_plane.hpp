// The shared-memory data plane over a mapping made before: ranks that are threads of one process
// share it. Internal to transport/, and for tests.
#pragma once

#include "transport/data_plane.hpp"
#include "transport/shared_memory_segment.hpp"

#include <memory>

namespace troupe::transport {

// Errors: invalid_argument (a seat that the segment does not have).
[[nodiscard]] base::result<std::unique_ptr<data_plane>> make_shared_memory(
    data_plane_seat seat, std::shared_ptr<shared_segment> segment);

}  // namespace troupe::transport
