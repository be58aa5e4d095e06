#include "schemas/codec.hpp"
#include "schemas/epoch_field.hpp"
#include "schemas/supervisor_message.capnp.h"
#include "schemas/wire_message.hpp"

namespace troupe::schemas {
namespace {

using builder = wire::SupervisorMessage::Builder;

// One function a kind of message; the variant picks it.
void write_body(builder out, const control_plane_at& message) {
  auto to = out.initControlPlaneAt();
  to.setHost(message.host);
  to.setPort(message.port);
}
void write_body(builder out, const segment& message) {
  write_epoch(out.initSegment(), message.epoch);
}
void write_body(builder out, const rank_lost& message) {
  auto to = out.initRankLost();
  to.setRank(message.rank.value);
  to.setCause(message.cause);
  to.setRestarts(message.restarts);
}
void write_body(builder out, const drain& message) { out.setDrainPatienceMs(message.patience_ms); }
void write_body(builder out, const ping& message) { out.setPing(message.number); }
void write_body(builder out, const pong& message) { out.setPong(message.number); }
void write_body(builder out, const control_plane_listens& message) {
  auto to = out.initControlPlaneListens();
  to.setHost(message.host);
  to.setPort(message.port);
}
void write_body(builder out, const segment_wanted& message) {
  auto to = out.initSegmentWanted();
  write_epoch(to.initEpoch(), message.epoch);
  to.setRanks(message.ranks);
}
void write_body(builder out, const phase_changed& message) {
  auto to = out.initPhaseChanged();
  to.setPhase(static_cast<std::uint8_t>(message.phase));
  write_epoch(to.initEpoch(), message.epoch);
  to.setDetail(message.detail);
}
void write_body(builder out, const announce& message) { out.setAnnounce(message.json); }
void write_body(builder out, const give_up& message) {
  auto to = out.initGiveUp();
  to.setExitCode(message.exit_code);
  to.setReason(message.reason);
}
void write_body(builder out, const heartbeat& message) {
  auto to = out.initHeartbeat();
  to.setProtocol(message.protocol);
  to.setBuildId(message.build_id);
  to.setNodeRank(message.node_rank);
  to.setNnodes(message.nnodes);
  to.setNumber(message.number);
}

rank_phase read_phase(std::uint8_t phase) {
  if (phase > static_cast<std::uint8_t>(rank_phase::draining)) refuse_field("phase");
  return static_cast<rank_phase>(phase);
}

phase_changed read_phase_changed(wire::PhaseChanged::Reader in) {
  return {.phase = read_phase(in.getPhase()),
          .epoch = read_epoch(in.getEpoch()),
          .detail = read_text(in.getDetail())};
}

heartbeat read_heartbeat(wire::Heartbeat::Reader in) {
  return {.protocol = in.getProtocol(),
          .build_id = read_text(in.getBuildId()),
          .node_rank = in.getNodeRank(),
          .nnodes = in.getNnodes(),
          .number = in.getNumber()};
}

rank_lost read_rank_lost(wire::RankLost::Reader in) {
  return {.rank = {in.getRank()}, .cause = read_text(in.getCause()), .restarts = in.getRestarts()};
}

supervisor_message read_supervisor(wire::SupervisorMessage::Reader in) {
  using kind = wire::SupervisorMessage::Which;
  switch (in.which()) {
    case kind::CONTROL_PLANE_AT:
      return {control_plane_at{.host = read_text(in.getControlPlaneAt().getHost()),
                               .port = in.getControlPlaneAt().getPort()}};
    case kind::SEGMENT:
      return {segment{read_epoch(in.getSegment())}};
    case kind::RANK_LOST:
      return {read_rank_lost(in.getRankLost())};
    case kind::DRAIN_PATIENCE_MS:
      return {drain{in.getDrainPatienceMs()}};
    case kind::PING:
      return {ping{in.getPing()}};
    case kind::PONG:
      return {pong{in.getPong()}};
    case kind::CONTROL_PLANE_LISTENS:
      return {control_plane_listens{.host = read_text(in.getControlPlaneListens().getHost()),
                                    .port = in.getControlPlaneListens().getPort()}};
    case kind::SEGMENT_WANTED:
      return {segment_wanted{.epoch = read_epoch(in.getSegmentWanted().getEpoch()),
                             .ranks = in.getSegmentWanted().getRanks()}};
    case kind::PHASE_CHANGED:
      return {read_phase_changed(in.getPhaseChanged())};
    case kind::ANNOUNCE:
      return {announce{read_text(in.getAnnounce())}};
    case kind::GIVE_UP:
      return {give_up{.exit_code = in.getGiveUp().getExitCode(),
                      .reason = read_text(in.getGiveUp().getReason())}};
    case kind::HEARTBEAT:
      return {read_heartbeat(in.getHeartbeat())};
  }
  refuse_field("a kind of message that this version does not know",
               base::error_code::unimplemented);
}

}  // namespace

wire_bytes encode(const supervisor_message& message) {
  return write_message<wire::SupervisorMessage>(512, [&](builder out) {
    std::visit([&](const auto& body) { write_body(out, body); }, message.body);
  });
}

base::result<supervisor_message> decode_supervisor_message(std::span<const std::uint8_t> bytes) {
  return read_message<wire::SupervisorMessage>(bytes, wire_limits::supervisor_bytes_max,
                                               "supervisor message", read_supervisor);
}

}  // namespace troupe::schemas
