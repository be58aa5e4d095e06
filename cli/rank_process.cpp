#include "cli/rank_process.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/entropy.hpp"
#include "base/process.hpp"
#include "cli/offered_paths.hpp"
#include "kernels/nccl_environment.hpp"
#include "models/model_digest.hpp"
#include "schemas/codec.hpp"
#include "supervisor/supervisor.hpp"
#include "transport/shared_memory.hpp"
#include "transport/tls_data_plane.hpp"
#include "transport/ucx_data_plane.hpp"
#include "transport/ucx_environment.hpp"

namespace troupe::cli {
namespace {

using descriptors = supervisor::rank_descriptors;

std::string host_name() {
  std::string name(256, '\0');
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  name.resize(name.find('\0'));
  return name;
}

base::result<schemas::join_request> describe_self(const rank_parts& parts,
                                                  const engine_limits& limits,
                                                  const gang_topology& topology) {
  const opened_model& opened = parts.opened;
  TROUPE_TRY(digest, models::description_digest(opened.folder, opened.files));
  schemas::join_request self{.protocol = schemas::protocol_version,
                             .build_id = member_build(parts.gang),
                             .rank = {parts.seat.rank},
                             .node = host_name(),
                             .layout = {},
                             .model_description_digest = digest,
                             .instruction_paths = {},
                             .kernel_version = kernels::kernel_numerics_version};
  self.layout = {.tensor_parallel_size = parts.model.tensor_parallel_size,
                 .pipeline_parallel_size = parts.model.pipeline_parallel_size,
                 .max_model_len = limits.max_model_len,
                 .max_num_seqs = parts.model.max_num_seqs,
                 .max_num_batched_tokens = parts.model.max_num_batched_tokens,
                 .kv_blocks = limits.kv_blocks,
                 .block_size = parts.model.block_size,
                 .weights_dtype = std::string(weights_name(opened.profile)),
                 .kv_cache_dtype = std::string(to_string(opened.profile.kv_cache)),
                 .data_plane = topology.data_plane};
  for (const auto path : offered_paths(opened.profile.path, parts.model.numerics != "auto",
                                       kernels::supported_paths(opened.profile.weights))) {
    self.instruction_paths.emplace_back(to_string(path));
  }
  return self;
}

// What opens this rank's end of each epoch's data plane.
base::result<actors::plane_opener> make_plane_opener(const gang_topology& topology,
                                                     const base::credential_files& files) {
  if (topology.data_plane == "shared_memory") {
    return [](const transport::data_plane_seat& seat, base::fd segment) {
      return transport::open_shared_memory(seat, std::move(segment));
    };
  }
  // Loopback needs no fixed range; between hosts the last port is the supervisors'.
  const bool fixed = topology.nnodes > 1;
  const std::uint16_t first = fixed ? topology.ports.first : std::uint16_t{0};
  const auto last = static_cast<std::uint16_t>(fixed ? topology.ports.last - 1 : 0);
  if (topology.data_plane == "ucx") {
    TROUPE_TRY_VOID(transport::prepare_ucx_environment(
        {.local_address = topology.gang_host, .port_first = first, .port_last = last}));
    return
        [](const transport::data_plane_seat& seat, base::fd) { return transport::open_ucx(seat); };
  }
  TROUPE_TRY(credentials, base::unseal_credentials(files));
  return [credentials, first, last, host = topology.gang_host](
             const transport::data_plane_seat& seat, base::fd) {
    return transport::open_tls(seat, {.credentials = &credentials,
                                      .host = host,
                                      .port_first = first,
                                      .port_last = last,
                                      .messages = {}});
  };
}

// Within a host NCCL is bound to loopback; it leaves a host only where it was asked for by name.
base::result<void> prepare_device_collectives(const rank_parts& parts,
                                              const gang_topology& topology) {
  const auto choice = collectives_of(parts.model);
  if (!parts.opened.device || choice == engine::device_collectives::host) return {};
  const bool between = topology.nnodes > 1 && choice == engine::device_collectives::nccl;
  if (!between) return kernels::prepare_nccl_environment("lo");
  TROUPE_TRY(device, transport::interface_of(topology.gang_host));
  return kernels::prepare_nccl_environment(device);
}

// Only a gang that serves compares its weights: a command that ends soon starts sooner.
base::result<void> add_digest(const rank_parts& parts, rank_setup& setup) {
  if (parts.one_shot) return {};
  const bool leads = parts.seat.rank == 0;
  actors::rank_host_options& host = setup.process.host;
  TROUPE_TRY(digest,
             models::weight_digest::make(
                 {.files = &parts.opened.files,
                  .config = parts.opened.config,
                  .where = host.engine.where,
                  .whole = leads,
                  .cache_folder = std::filesystem::path(resolve_state_dir(parts.gang)) / "digests",
                  .vitals = host.engine.vitals}));
  host.digest = std::move(digest);
  if (!leads) return {};
  host.shares = std::make_shared<actors::share_book>();
  setup.shares = host.shares;
  setup.process.gang.check_share = [shares = setup.shares](const schemas::join_request& rank,
                                                           const schemas::loaded& share) {
    return shares->why_refused(rank, share);
  };
  return {};
}

engine::rank_worker_options engine_part(const rank_parts& parts, const engine_limits& limits,
                                        base::rank_vitals* vitals) {
  const int tp = parts.model.tensor_parallel_size;
  return {.files = &parts.opened.files,
          .config = parts.opened.config,
          .where = {.tp_rank = parts.seat.rank % tp,
                    .tp_size = tp,
                    .pp_rank = parts.seat.rank / tp,
                    .pp_size = parts.model.pipeline_parallel_size},
          .profile = parts.opened.profile,
          .device = parts.opened.device.get(),
          .collectives = collectives_of(parts.model),
          .threads = parts.opened.threads_per_rank,
          .kv_blocks = limits.kv_blocks,
          .max_num_batched_tokens = parts.model.max_num_batched_tokens,
          .max_num_seqs = parts.model.max_num_seqs,
          .progress = {},
          .vitals = vitals};
}

}  // namespace

base::result<rank_inheritance> inherit(const rank_seat& seat) {
  TROUPE_TRY_VOID(base::die_with_parent(seat.parent));
  base::fd page(descriptors::vitals);
  TROUPE_TRY(vitals, base::memory_map::of(page, sizeof(base::rank_vitals),
                                          base::memory_access::read_write));
  // Open as long as the process lives: who looks at a rank from outside finds it by its number.
  static_cast<void>(page.release());
  return rank_inheritance{.channel = base::fd(descriptors::channel),
                          .vitals = std::move(vitals),
                          .credentials = {.certificate = base::fd(descriptors::certificate),
                                          .key = base::fd(descriptors::key),
                                          .authority = base::fd(descriptors::authority)}};
}

base::result<rank_setup> set_up_rank(const rank_parts& parts, rank_inheritance& inherited) {
  rank_setup setup;
  gang_flags gang = parts.gang;
  gang.gang_host = parts.seat.gang_host;  // the supervisor found it
  TROUPE_TRY(topology, resolve_topology(gang, parts.model));
  setup.topology = std::move(topology);
  TROUPE_TRY_VOID(prepare_device_collectives(parts, setup.topology));
  TROUPE_TRY(limits, choose_limits(parts.model, parts.opened, parts.load));
  setup.limits = limits;
  TROUPE_TRY(self, describe_self(parts, limits, setup.topology));
  TROUPE_TRY(opener, make_plane_opener(setup.topology, inherited.credentials));
  TROUPE_TRY(jitter, base::draw_seed());
  TROUPE_TRY(incarnation, base::draw_seed());
  const auto patience = std::chrono::seconds(parts.gang.gang_timeout_s);
  const bool one_host = setup.topology.data_plane == "shared_memory";
  const int world = setup.topology.world_size;
  actors::gang_process_options& process = setup.process;
  process.host = {
      .engine =
          engine_part(parts, limits, static_cast<base::rank_vitals*>(inherited.vitals.data())),
      .shape = {.tp_size = parts.model.tensor_parallel_size,
                .pp_size = parts.model.pipeline_parallel_size},
      .rank = parts.seat.rank,
      .weight_bytes_expected = packed_bytes(parts.opened) / static_cast<std::uint64_t>(world),
      .needs_segment = one_host,
      .open_plane = std::move(opener),
      .tell_phase = {},
      .end = {}};
  process.worker = {.self = self, .world_size = world, .patience = patience, .jitter_seed = jitter};
  process.plane.certificate_path = base::path_of(inherited.credentials.certificate);
  process.plane.key_path = base::path_of(inherited.credentials.key);
  process.plane.authority_path = base::path_of(inherited.credentials.authority);
  process.channel = std::move(inherited.channel);
  process.gang = {.rules = {.leader = self, .world_size = world},
                  .incarnation = incarnation | 1U,  // never 0
                  .wants_segment = one_host,
                  .check_share = {},
                  .patience = patience,
                  .jitter_seed = jitter + 1};
  TROUPE_TRY_VOID(add_digest(parts, setup));
  process.listen_host = setup.topology.gang_host;
  if (setup.topology.nnodes > 1) {
    process.listen_port = parts.gang.control_port;
    process.leader = actors::worker::leader_at{setup.topology.leader_host, parts.gang.control_port};
  }
  return setup;
}

base::result<base::logger> make_rank_log(const rank_parts& parts) {
  base::log_level level =
      base::parse_log_level(parts.model.log_level).value_or(base::log_level::info);
  if (parts.one_shot && level == base::log_level::info) level = base::log_level::warning;
  return base::logger::make({.role = parts.seat.rank == 0 ? "leader" : "worker",
                             .rank = base::rank_id{parts.seat.rank},
                             .level = level});
}

void end_process(exit_code code) {
  std::fflush(nullptr);
  std::_Exit(static_cast<int>(code));
}

void run_worker_rank(const rank_parts& parts) {
  auto inherited = inherit(parts.seat);
  if (!inherited) end_process(report(inherited.error()));
  auto log = make_rank_log(parts);
  if (!log) end_process(report(log.error()));
  auto setup = set_up_rank(parts, *inherited);
  if (!setup) end_process(report(setup.error()));
  auto process = actors::gang_process::start(std::move(setup->process), *log, nullptr);
  if (!process) end_process(report(process.error()));
  const schemas::give_up last = (*process)->wait();
  if (last.exit_code != 0) log->error(last.reason);
  end_process(static_cast<exit_code>(last.exit_code));
}

}  // namespace troupe::cli
