// Segments as transport makes them, behind the seam that supervisor::options has for them.
#pragma once

#include "supervisor/supervisor.hpp"

namespace troupe::supervisor {

// A transport::make_shared_segment() with a watch on it for the abort.
[[nodiscard]] base::result<made_segment> make_transport_segment(base::epoch_id epoch, int ranks);

}  // namespace troupe::supervisor
