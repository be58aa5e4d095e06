#include "schemas/codec.hpp"
#include "schemas/control_message.capnp.h"
#include "schemas/epoch_field.hpp"
#include "schemas/wire_message.hpp"

namespace troupe::schemas {
namespace {

using body_builder = wire::ControlMessage::Body::Builder;

capnp::Data::Reader data_of(std::span<const std::uint8_t> bytes) {
  return {bytes.data(), bytes.size()};
}
std::vector<std::uint8_t> bytes_of(capnp::Data::Reader data) { return {data.begin(), data.end()}; }

std::array<std::uint8_t, 32> read_digest(capnp::Data::Reader data) {
  std::array<std::uint8_t, 32> digest{};
  if (data.size() != digest.size()) refuse_field("a digest has 32 bytes");
  std::copy(data.begin(), data.end(), digest.begin());
  return digest;
}

void write_layout(wire::GangLayout::Builder out, const gang_layout& layout) {
  out.setTensorParallelSize(layout.tensor_parallel_size);
  out.setPipelineParallelSize(layout.pipeline_parallel_size);
  out.setMaxModelLen(layout.max_model_len);
  out.setMaxNumSeqs(layout.max_num_seqs);
  out.setMaxNumBatchedTokens(layout.max_num_batched_tokens);
  out.setKvBlocks(layout.kv_blocks);
  out.setBlockSize(layout.block_size);
  out.setWeightsDtype(layout.weights_dtype);
  out.setKvCacheDtype(layout.kv_cache_dtype);
  out.setDataPlane(layout.data_plane);
}

gang_layout read_layout(wire::GangLayout::Reader in) {
  return {.tensor_parallel_size = in.getTensorParallelSize(),
          .pipeline_parallel_size = in.getPipelineParallelSize(),
          .max_model_len = in.getMaxModelLen(),
          .max_num_seqs = in.getMaxNumSeqs(),
          .max_num_batched_tokens = in.getMaxNumBatchedTokens(),
          .kv_blocks = in.getKvBlocks(),
          .block_size = in.getBlockSize(),
          .weights_dtype = read_text(in.getWeightsDtype()),
          .kv_cache_dtype = read_text(in.getKvCacheDtype()),
          .data_plane = read_text(in.getDataPlane())};
}

// One function a kind of message; the variant picks it.
void write_body(body_builder out, const join_request& join) {
  auto to = out.initJoinRequest();
  to.setProtocol(join.protocol);
  to.setBuildId(join.build_id);
  to.setRank(join.rank.value);
  to.setNode(join.node);
  write_layout(to.initLayout(), join.layout);
  to.setModelDescriptionDigest(data_of(join.model_description_digest));
  auto paths = to.initInstructionPaths(static_cast<unsigned>(join.instruction_paths.size()));
  for (unsigned i = 0; i < paths.size(); ++i) paths.set(i, join.instruction_paths[i]);
  to.setKernelVersion(join.kernel_version);
}
void write_body(body_builder out, const welcome& message) {
  auto to = out.initWelcome();
  to.setIncarnation(message.incarnation);
  to.setInstructionPath(message.instruction_path);
}
void write_body(body_builder out, const refusal& message) { out.setRefusal(message.reason); }
void write_body(body_builder out, const loading_progress& message) {
  auto to = out.initLoadingProgress();
  to.setBytes(message.bytes);
  to.setTotalBytes(message.total_bytes);
}
void write_body(body_builder out, const loaded& message) {
  auto to = out.initLoaded();
  to.setShareDigest(data_of(message.share_digest));
  to.setInstructionPath(message.instruction_path);
}
void write_body(body_builder out, const prepare& message) {
  write_epoch(out.initPrepare(), message.epoch);
}
void write_body(body_builder out, const prepared& message) {
  auto to = out.initPrepared();
  write_epoch(to.initEpoch(), message.epoch);
  to.setAddress(data_of(message.address));
}
void write_body(body_builder out, const connect& message) {
  auto to = out.initConnect();
  write_epoch(to.initEpoch(), message.epoch);
  auto addresses = to.initAddresses(static_cast<unsigned>(message.addresses.size()));
  for (unsigned i = 0; i < addresses.size(); ++i) {
    addresses.set(i, data_of(message.addresses[i]));
  }
}
void write_body(body_builder out, const connected& message) {
  write_epoch(out.initConnected(), message.epoch);
}
void write_body(body_builder out, const epoch_ended& message) {
  auto to = out.initEpochEnded();
  write_epoch(to.initEpoch(), message.epoch);
  to.setReason(message.reason);
}

join_request read_join(wire::JoinRequest::Reader in) {
  join_request join{.protocol = in.getProtocol(),
                    .build_id = read_text(in.getBuildId()),
                    .rank = {in.getRank()},
                    .node = read_text(in.getNode()),
                    .layout = read_layout(in.getLayout()),
                    .model_description_digest = read_digest(in.getModelDescriptionDigest()),
                    .instruction_paths = {},
                    .kernel_version = in.getKernelVersion()};
  for (const auto path : in.getInstructionPaths()) {
    join.instruction_paths.push_back(read_text(path));
  }
  return join;
}

connect read_connect(wire::Connect::Reader in) {
  connect message{.epoch = read_epoch(in.getEpoch()), .addresses = {}};
  for (const auto address : in.getAddresses()) message.addresses.push_back(bytes_of(address));
  return message;
}

control_message read_control(wire::ControlMessage::Reader in) {
  control_message message{.sender = {in.getSender()}, .sequence = in.getSequence(), .body = {}};
  const auto body = in.getBody();
  using kind = wire::ControlMessage::Body::Which;
  switch (body.which()) {
    case kind::JOIN_REQUEST:
      message.body = read_join(body.getJoinRequest());
      return message;
    case kind::WELCOME:
      message.body = welcome{.incarnation = body.getWelcome().getIncarnation(),
                             .instruction_path = read_text(body.getWelcome().getInstructionPath())};
      return message;
    case kind::REFUSAL:
      message.body = refusal{read_text(body.getRefusal())};
      return message;
    case kind::LOADING_PROGRESS:
      message.body = loading_progress{.bytes = body.getLoadingProgress().getBytes(),
                                      .total_bytes = body.getLoadingProgress().getTotalBytes()};
      return message;
    case kind::LOADED:
      message.body = loaded{.share_digest = read_digest(body.getLoaded().getShareDigest()),
                            .instruction_path = read_text(body.getLoaded().getInstructionPath())};
      return message;
    case kind::PREPARE:
      message.body = prepare{read_epoch(body.getPrepare())};
      return message;
    case kind::PREPARED:
      message.body = prepared{.epoch = read_epoch(body.getPrepared().getEpoch()),
                              .address = bytes_of(body.getPrepared().getAddress())};
      return message;
    case kind::CONNECT:
      message.body = read_connect(body.getConnect());
      return message;
    case kind::CONNECTED:
      message.body = connected{read_epoch(body.getConnected())};
      return message;
    case kind::EPOCH_ENDED:
      message.body = epoch_ended{.epoch = read_epoch(body.getEpochEnded().getEpoch()),
                                 .reason = read_text(body.getEpochEnded().getReason())};
      return message;
  }
  refuse_field("a kind of message that this version does not know",
               base::error_code::unimplemented);
}

}  // namespace

wire_bytes encode(const control_message& message) {
  return write_message<wire::ControlMessage>(1024, [&](wire::ControlMessage::Builder out) {
    out.setSender(message.sender.value);
    out.setSequence(message.sequence);
    std::visit([&](const auto& body) { write_body(out.getBody(), body); }, message.body);
  });
}

base::result<control_message> decode_control_message(std::span<const std::uint8_t> bytes) {
  return read_message<wire::ControlMessage>(bytes, wire_limits::control_bytes_max,
                                            "control message", read_control);
}

}  // namespace troupe::schemas
