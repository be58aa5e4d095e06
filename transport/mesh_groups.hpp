// The groups of a rank over one mesh of messages: world, tensor-parallel and pipeline group share
// the channels of each pair of ranks. Every rank runs the same program, so the messages of a pair
// come in one order whatever group they belong to; the tag's `group` proves it.
// Internal to the data planes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "transport/groups.hpp"
#include "transport/message_collective.hpp"
#include "transport/point_to_point.hpp"

namespace troupe::transport {

// The ranks of the world that one rank's groups have as members, in the groups' order.
struct group_members {
  std::vector<int> world;
  std::vector<int> tp;
  std::vector<int> pp;
};
[[nodiscard]] group_members members_of(world_shape shape, int rank);

// What message_tag::group says.
inline constexpr std::uint8_t world_group = 0;
inline constexpr std::uint8_t tp_group = 1;
inline constexpr std::uint8_t pp_group = 2;

// `mesh` connects the ranks of the world; abort() on any group aborts it, and so all.
[[nodiscard]] rank_groups make_mesh_groups(std::shared_ptr<point_to_point> mesh, world_shape shape,
                                           base::epoch_id epoch, message_options options = {});

}  // namespace troupe::transport
