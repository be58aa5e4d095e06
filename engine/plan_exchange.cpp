#include "engine/plan_exchange.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "schemas/codec.hpp"

namespace troupe::engine {
namespace {

using schemas::wire_bytes;

// A plan of one sequence that decodes takes about 200 bytes and 4 for each of its blocks: 1 KiB
// holds it up to 3,000 positions, and costs a transport no more than 8 bytes do.
constexpr std::size_t first_piece_bytes = 1024;
constexpr std::size_t length_bytes = sizeof(std::uint64_t);
constexpr std::size_t first_payload_bytes = first_piece_bytes - length_bytes;
using first_piece = std::array<std::byte, first_piece_bytes>;

// Length 0 stands for "no more plans"; no message is empty.
first_piece first_of(const wire_bytes& message) {
  first_piece piece{};
  const std::uint64_t length = message.size();
  std::memcpy(piece.data(), &length, length_bytes);
  if (!message.empty()) {
    std::memcpy(piece.data() + length_bytes, message.data(),
                std::min(message.size(), first_payload_bytes));
  }
  return piece;
}

std::span<const std::byte> rest_of(const wire_bytes& message) {
  const std::size_t sent = std::min(message.size(), first_payload_bytes);
  return std::as_bytes(std::span(message).subspan(sent));
}

// The message that `piece` begins, with room for the rest.
base::result<wire_bytes> message_begun(const first_piece& piece, std::size_t bytes_max) {
  std::uint64_t length = 0;
  std::memcpy(&length, piece.data(), length_bytes);
  if (length > bytes_max) {
    return base::fail(base::error_code::invalid_argument, "engine",
                      "a message of " + std::to_string(length) + " bytes, at most " +
                          std::to_string(bytes_max) + " are taken");
  }
  wire_bytes message(static_cast<std::size_t>(length));
  if (length > 0) {
    std::memcpy(message.data(), piece.data() + length_bytes,
                std::min(message.size(), first_payload_bytes));
  }
  return message;
}

std::span<std::byte> room_for_rest(wire_bytes& message) {
  const std::size_t received = std::min(message.size(), first_payload_bytes);
  return std::as_writable_bytes(std::span(message).subspan(received));
}

// The root's part. The root only reads its bytes; the interface has one signature for all ranks.
base::result<void> broadcast_message(transport::collective& world, base::epoch_id epoch,
                                     const wire_bytes& message) {
  first_piece piece = first_of(message);
  TROUPE_TRY_VOID(world.broadcast(epoch, world.rank(), piece));
  const std::span<const std::byte> rest = rest_of(message);
  if (rest.empty()) return {};
  return world.broadcast(epoch, world.rank(), {const_cast<std::byte*>(rest.data()), rest.size()});
}

base::result<wire_bytes> receive_message(transport::collective& world, base::epoch_id epoch,
                                         int root, std::size_t bytes_max) {
  first_piece piece;
  TROUPE_TRY_VOID(world.broadcast(epoch, root, piece));
  TROUPE_TRY(message, message_begun(piece, bytes_max));
  const std::span<std::byte> rest = room_for_rest(message);
  if (!rest.empty()) TROUPE_TRY_VOID(world.broadcast(epoch, root, rest));
  return message;
}

}  // namespace

base::result<void> broadcast_plan(transport::collective& world, base::epoch_id epoch,
                                  const step_plan* plan) {
  if (world.size() == 1) return {};
  return broadcast_message(world, epoch, plan == nullptr ? wire_bytes{} : schemas::encode(*plan));
}

base::result<std::optional<step_plan>> receive_plan(transport::collective& world,
                                                    base::epoch_id epoch) {
  TROUPE_TRY(message, receive_message(world, epoch, 0, schemas::wire_limits::step_plan_bytes_max));
  if (message.empty()) return std::optional<step_plan>{};
  TROUPE_TRY(plan, schemas::decode_step_plan(message));
  return std::optional(std::move(plan));
}

base::result<void> broadcast_changes(transport::collective& world, base::epoch_id epoch,
                                     const following_changes& changes) {
  if (world.size() == 1) return {};
  return broadcast_message(world, epoch, schemas::encode(changes));
}

base::result<following_changes> receive_changes(transport::collective& world,
                                                base::epoch_id epoch) {
  TROUPE_TRY(message,
             receive_message(world, epoch, 0, schemas::wire_limits::following_changes_bytes_max));
  return schemas::decode_following_changes(message);
}

base::result<void> broadcast_result(transport::collective& world, base::epoch_id epoch, int from,
                                    step_result& result) {
  if (world.rank() == from) return broadcast_message(world, epoch, schemas::encode(result));
  TROUPE_TRY(message,
             receive_message(world, epoch, from, schemas::wire_limits::step_result_bytes_max));
  TROUPE_TRY(received, schemas::decode_step_result(message));
  result = std::move(received);
  return {};
}

}  // namespace troupe::engine
