#include "supervisor/rank_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "base/vitals.hpp"
#include "schemas/codec.hpp"

namespace troupe::supervisor {
namespace {

constexpr std::size_t page_bytes = 4096;
static_assert(sizeof(base::rank_vitals) <= page_bytes);

}  // namespace

base::result<rank_process> rank_process::start(const start_options& options) {
  TROUPE_TRY(ends, base::channel::make_pair());
  TROUPE_TRY(page, base::make_memory_file({.name = "troupe-vitals", .bytes = page_bytes}));
  TROUPE_TRY(view, base::memory_map::of(page, page_bytes, base::memory_access::read));
  base::spawn_options spawning{
      .program = options.command.program,
      .arguments = options.command.arguments,
      .environment = options.command.environment,
      .descriptors = {{.from = ends.second.descriptor(), .as = rank_descriptors::channel},
                      {.from = page.get(), .as = rank_descriptors::vitals}},
      .null_input = !options.keeps_terminal,
      .own_process_group = !options.keeps_terminal};
  auto& inherited = spawning.descriptors;
  if (const base::credential_files* files = options.credentials) {
    inherited.push_back({files->certificate.get(), rank_descriptors::certificate});
    inherited.push_back({files->key.get(), rank_descriptors::key});
    inherited.push_back({files->authority.get(), rank_descriptors::authority});
  }
  if (options.listening >= 0) {
    inherited.push_back({options.listening, rank_descriptors::listening});
  }
  // stdout is the supervisor's alone.
  if (!options.keeps_terminal) inherited.push_back({STDERR_FILENO, STDOUT_FILENO});
  TROUPE_TRY(child, base::spawn(spawning));
  return rank_process(std::move(child), std::move(ends.first), std::move(view));
}

base::result<void> rank_process::tell(const schemas::supervisor_message& message, int descriptor) {
  if (!open_) return {};  // it has closed its end: it will end, or it is lost by its vitals
  if (outbox_.size() >= outbox_max) {
    return base::fail(base::error_code::resource_exhausted, "supervisor",
                      fmt::format("a rank has left {} messages unread", outbox_.size()));
  }
  letter one{.bytes = schemas::encode(message), .descriptor = {}};
  if (descriptor >= 0) one.descriptor = base::fd(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
  outbox_.push_back(std::move(one));
  flush();
  return {};
}

void rank_process::flush() {
  while (open_ && !outbox_.empty()) {
    const letter& first = outbox_.front();
    const int number = first.descriptor.get();
    const std::span<const int> beside(&number, first.descriptor ? 1U : 0U);
    const base::result<bool> sent = channel_.send(first.bytes, beside);
    if (sent && !*sent) return;
    if (!sent) open_ = false;
    outbox_.pop_front();
  }
  if (!open_) outbox_.clear();
}

rank_process::heard rank_process::receive() {
  heard all;
  for (int count = 0; open_ && count < messages_per_turn; ++count) {
    auto got = channel_.receive(schemas::wire_limits::supervisor_bytes_max);
    if (!got) {
      open_ = got.error().code == base::error_code::invalid_argument;
      all.refused.push_back(got.error().message);
      continue;
    }
    if (got->kind == base::channel::datagram::what::nothing) break;
    if (got->kind == base::channel::datagram::what::closed) {
      open_ = false;
      break;
    }
    // Descriptors beside it are closed with it: ranks send none.
    auto message = schemas::decode_supervisor_message(got->bytes);
    if (message) {
      all.messages.push_back(std::move(*message));
    } else {
      all.refused.push_back(message.error().message);
    }
  }
  return all;
}

vitals_sample rank_process::vitals() const {
  const auto& page = *static_cast<const base::rank_vitals*>(page_.data());
  vitals_sample sample;
  sample.ticks = page.ticks.load(std::memory_order_acquire);
  sample.longest_tick_ns = page.longest_tick_ns.load(std::memory_order_relaxed);
  sample.last_tick_ns = page.last_tick_ns.load(std::memory_order_relaxed);
  sample.doing = page.doing.load(std::memory_order_acquire);
  const std::int32_t thread = page.thread_id.load(std::memory_order_relaxed);
  if (thread > 0) {
    if (const auto used = base::thread_cpu_ns(child_.id, thread)) sample.cpu_ns = *used;
  }
  return sample;
}

}  // namespace troupe::supervisor
