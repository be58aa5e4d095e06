#include "transport/mesh_groups.hpp"

#include <utility>
#include <vector>

namespace troupe::transport {
namespace {

// A group's own numbering of some ranks of the mesh.
class mesh_group final : public point_to_point {
 public:
  mesh_group(std::shared_ptr<point_to_point> mesh, std::uint8_t group, std::vector<int> members)
      : mesh_(std::move(mesh)), group_(group), members_(std::move(members)) {
    for (std::size_t seat = 0; seat < members_.size(); ++seat) {
      if (members_[seat] == mesh_->rank()) rank_ = static_cast<int>(seat);
    }
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return static_cast<int>(members_.size()); }

  base::result<void> send(message_tag tag, outgoing message) override {
    return mesh_->send(ours(tag), {.to = member(message.to), .bytes = message.bytes});
  }
  base::result<void> receive(message_tag tag, incoming message) override {
    return mesh_->receive(ours(tag), {.from = member(message.from), .bytes = message.bytes});
  }
  base::result<void> exchange(message_tag tag, outgoing out, incoming in) override {
    return mesh_->exchange(ours(tag), {.to = member(out.to), .bytes = out.bytes},
                           {.from = member(in.from), .bytes = in.bytes});
  }
  void abort() noexcept override { mesh_->abort(); }

 private:
  [[nodiscard]] int member(int seat) const { return members_.at(static_cast<std::size_t>(seat)); }
  [[nodiscard]] message_tag ours(message_tag tag) const noexcept {
    tag.group = group_;
    return tag;
  }

  const std::shared_ptr<point_to_point> mesh_;
  const std::uint8_t group_;
  const std::vector<int> members_;
  int rank_ = 0;
};

}  // namespace

group_members members_of(world_shape shape, int rank) {
  const int stage = rank / shape.tp_size;
  const int place = rank % shape.tp_size;
  group_members members;
  for (int other = 0; other < shape.tp_size * shape.pp_size; ++other) {
    members.world.push_back(other);
    if (other / shape.tp_size == stage) members.tp.push_back(other);
    if (other % shape.tp_size == place) members.pp.push_back(other);
  }
  return members;
}

rank_groups make_mesh_groups(std::shared_ptr<point_to_point> mesh, world_shape shape,
                             base::epoch_id epoch, message_options options) {
  group_members members = members_of(shape, mesh->rank());
  const auto make = [&](std::uint8_t group, std::vector<int> ranks) {
    return std::make_unique<message_collective>(
        std::make_unique<mesh_group>(mesh, group, std::move(ranks)), epoch, options);
  };
  rank_groups groups;
  groups.world = make(world_group, std::move(members.world));
  groups.tp = make(tp_group, std::move(members.tp));
  groups.pp = make(pp_group, std::move(members.pp));
  return groups;
}

}  // namespace troupe::transport
