// A group of one rank: sums are the identity, gathers are copies, there is nobody to wait for.
//
// So that a model runs on one rank through the same calls as on eight. The same rules as every
// collective: one epoch, one thread, dead after abort().
//
//   std::unique_ptr<transport::collective> tp = transport::make_alone(epoch);
#pragma once

#include "transport/collective.hpp"

#include <memory>

namespace troupe::transport {

[[nodiscard]] std::unique_ptr<collective> make_alone(base::epoch_id epoch);

}  // namespace troupe::transport
