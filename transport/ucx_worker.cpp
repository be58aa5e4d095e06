#include "transport/ucx_worker.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "transport/wait_word.hpp"

namespace troupe::transport {
namespace {

// UCX promises an event for whatever arrives. Looking anyway once in a while costs nothing and
// turns a lost one into a delay.
constexpr std::chrono::milliseconds sleep_max{100};
// UCX's address of a worker without any transport: its id and name.
constexpr std::size_t empty_address_bytes = 10;

tl::unexpected<base::error> fail_ucx(const char* what, std::string_view why) {
  const char* const devices = std::getenv("UCX_NET_DEVICES");
  const char* const ports = std::getenv("UCX_TCP_PORT_RANGE");
  return base::fail(base::error_code::unavailable, "transport",
                    fmt::format("UCX {} on '{}' (ports {}): {}", what, devices ? devices : "",
                                ports ? ports : "any", why),
                    true);
}

}  // namespace

base::result<std::unique_ptr<ucx_worker>> ucx_worker::open(int ranks) {
  const char* const devices = std::getenv("UCX_NET_DEVICES");
  if (devices == nullptr || *devices == '\0' || std::string_view(devices) == "all") {
    return base::fail(base::error_code::failed_precondition, "transport",
                      "UCX would listen on every network device: name one "
                      "(prepare_ucx_environment() before the data plane is opened)");
  }
  TROUPE_TRY(ucx, load_ucx());
  // A progress call that finds nothing takes about 0.5 us (an epoll_wait): some 100 us when each
  // rank has a core, as long as the other waits spin.
  const int spins = std::max(spins_for(ranks) / 10, 4);
  std::unique_ptr<ucx_worker> worker(new ucx_worker(ucx, spins));
  worker->wake_fd_ = base::fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!worker->wake_fd_) return fail_ucx("cannot start", std::strerror(errno));
  TROUPE_TRY_VOID(worker->make_context(ranks));
  TROUPE_TRY_VOID(worker->make_worker());
  return worker;
}

base::result<void> ucx_worker::make_context(int ranks) {
  ucp_config_t* config = nullptr;
  if (const ucs_status_t read = ucx_.config_read(nullptr, nullptr, &config); read != UCS_OK) {
    return fail_ucx("refuses its environment variables", ucx_.status_string(read));
  }
  ucp_params_t params{};
  params.field_mask =
      UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS | UCP_PARAM_FIELD_NAME;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.estimated_num_eps = static_cast<std::size_t>(ranks);
  params.name = "troupe";
  const ucs_status_t made =
      ucx_.init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &context_);
  ucx_.config_release(config);
  if (made == UCS_OK) return {};
  context_ = nullptr;
  return fail_ucx("cannot start", ucx_.status_string(made));
}

base::result<void> ucx_worker::make_worker() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  // One thread at a time, not always the same: connect() and the groups, and abort() between them.
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  if (const auto made = ucx_.worker_create(context_, &params, &worker_); made != UCS_OK) {
    worker_ = nullptr;
    return fail_ucx("cannot listen", ucx_.status_string(made));
  }
  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS | UCP_WORKER_ATTR_FIELD_ADDRESS_FLAGS;
  attributes.address_flags = UCP_WORKER_ADDRESS_FLAG_NET_ONLY;  // no shared memory: its peers'
                                                                // death goes unnoticed
  if (const auto asked = ucx_.worker_query(worker_, &attributes); asked != UCS_OK) {
    return fail_ucx("has no address", ucx_.status_string(asked));
  }
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(attributes.address);
  address_.assign(bytes, bytes + attributes.address_length);
  ucx_.worker_release_address(worker_, attributes.address);
  if (address_.size() <= empty_address_bytes) {
    return fail_ucx("cannot listen",
                    "the device is not there or not up, or none of its ports is free");
  }
  if (const auto got = ucx_.worker_get_efd(worker_, &event_fd_); got != UCS_OK) {
    return fail_ucx("cannot wait for events", ucx_.status_string(got));
  }
  return {};
}

ucx_worker::~ucx_worker() {
  if (worker_ != nullptr) ucx_.worker_destroy(worker_);
  if (context_ != nullptr) ucx_.cleanup(context_);
}

void ucx_worker::turn(std::optional<clock::time_point> until) {
  if (ucx_.worker_progress(worker_) != 0) {
    idle_turns_ = 0;
    return;
  }
  if (++idle_turns_ < spins_) {
    spin_pause();
    return;
  }
  idle_turns_ = 0;
  // Not UCS_OK: something has come since, or no transport can tell; progress again at once.
  if (ucx_.worker_arm(worker_) == UCS_OK) sleep(until);
}

void ucx_worker::sleep(std::optional<clock::time_point> until) {
  auto patience = sleep_max;
  if (until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - clock::now());
    patience = std::clamp(left, std::chrono::milliseconds(0), sleep_max);
  }
  std::array<pollfd, 2> descriptors = {{{.fd = event_fd_, .events = POLLIN, .revents = 0},
                                        {.fd = wake_fd_.get(), .events = POLLIN, .revents = 0}}};
  // Whatever ends it, the caller looks again.
  ::poll(descriptors.data(), descriptors.size(), static_cast<int>(patience.count()));
}

void ucx_worker::wake() noexcept {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then every sleep ends at once already.
  if (::write(wake_fd_.get(), &one, sizeof one) < 0) return;
}

}  // namespace troupe::transport
