// Groups that say when they wait: a rank inside a collective is waiting, not wedged.
#pragma once

#include "base/vitals.hpp"
#include "transport/groups.hpp"

namespace troupe::transport {

// The same groups; every call marks `vitals` as waiting until it returns, then as what it was.
// Lifetime: vitals outlive the groups.
[[nodiscard]] rank_groups watch(rank_groups groups, base::rank_vitals& vitals);

}  // namespace troupe::transport
