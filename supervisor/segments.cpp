#include "supervisor/segments.hpp"

#include <memory>
#include <utility>

#include "transport/shared_memory.hpp"

namespace troupe::supervisor {

base::result<made_segment> make_transport_segment(base::epoch_id epoch, int ranks) {
  TROUPE_TRY(descriptor, transport::make_shared_segment(epoch, ranks));
  TROUPE_TRY(watch, transport::shared_segment_watch::open(descriptor.get()));
  // std::function wants what it holds to be copyable.
  auto held = std::make_shared<transport::shared_segment_watch>(std::move(watch));
  return made_segment{.descriptor = std::move(descriptor), .abort = [held] { held->abort(); }};
}

}  // namespace troupe::supervisor
