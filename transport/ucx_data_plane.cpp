#include "transport/ucx_data_plane.hpp"

#include "transport/mesh_groups.hpp"
#include "transport/ucx_mesh.hpp"

#include <utility>

namespace troupe::transport {
namespace {

class ucx_data_plane final : public data_plane {
 public:
  ucx_data_plane(data_plane_seat seat, message_options messages, std::shared_ptr<ucx_mesh> mesh)
      : seat_(seat), messages_(messages), mesh_(std::move(mesh)) {}

  const data_plane_address& address() const noexcept override { return mesh_->address(); }

  base::result<rank_groups> connect(std::span<const data_plane_address> addresses,
                                    std::chrono::milliseconds patience) override {
    TROUPE_TRY_VOID(mesh_->connect(addresses, patience));
    return make_mesh_groups(mesh_, seat_.shape, seat_.epoch, messages_);
  }

  void abort() noexcept override { mesh_->abort(); }
  data_plane_counters counters() const noexcept override { return mesh_->counters(); }

 private:
  const data_plane_seat seat_;
  const message_options messages_;
  const std::shared_ptr<ucx_mesh> mesh_;
};

}  // namespace

base::result<std::unique_ptr<data_plane>> open_ucx(data_plane_seat seat, ucx_options options) {
  TROUPE_TRY(mesh, ucx_mesh::open(seat));
  return std::make_unique<ucx_data_plane>(seat, options.messages, std::move(mesh));
}

}  // namespace troupe::transport
