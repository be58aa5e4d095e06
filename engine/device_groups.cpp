#include "engine/device_groups.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/device_collective.hpp"
#include "engine/direct_collective.hpp"

namespace troupe::engine {
namespace {

device_offer offer_of(const device_group_formation& how) {
  device_offer offer{.choice = how.choice};
  if (how.choice == device_collectives::host) return offer;  // nothing is loaded
  const auto place = how.on.place();
  const auto library = place ? how.on.group_library() : tl::unexpected(place.error());
  offer.library = offer_text(library ? *library : library.error().message);
  if (!library) return offer;
  offer.available = 1;
  offer.host = offer_text(place->host);
  offer.address = offer_text(place->address);
  return offer;
}

template <class T>
base::result<std::vector<T>> gather(transport::collective& host, base::epoch_id epoch,
                                    const T& own) {
  std::vector<T> all(static_cast<std::size_t>(host.size()));
  TROUPE_TRY_VOID(host.all_gather(epoch, std::as_bytes(std::span(&own, 1)),
                                  std::as_writable_bytes(std::span(all))));
  return all;
}

// The group, or what this rank has against it, once every rank has tried.
struct attempt {
  std::unique_ptr<kernels::device_group> group;
  std::string why;
};

base::result<attempt> try_direct(transport::collective& host, const device_group_formation& how) {
  struct {
    std::uint8_t made = 0;
    kernels::device_group_id id{};
  } start;
  attempt tried;
  if (host.rank() == 0) {
    auto id = how.on.make_group_id();
    if (id) start = {1, *id};
    if (!id) tried.why = std::move(id).error().message;
  }
  TROUPE_TRY_VOID(host.broadcast(how.epoch, 0, std::as_writable_bytes(std::span(&start, 1))));
  if (start.made == 0) {
    if (tried.why.empty()) tried.why = "rank 0 of the group could not begin it";
    return tried;
  }
  auto group = how.on.make_group(
      how.queue, {.id = start.id, .rank = host.rank(), .size = host.size(), .over = how.over});
  if (!group && group.error().code == base::error_code::aborted) {
    return tl::unexpected(std::move(group).error());
  }
  TROUPE_TRY(made, gather(host, how.epoch, static_cast<std::uint8_t>(group ? 1 : 0)));
  const auto missing = std::find(made.begin(), made.end(), std::uint8_t{0});
  if (missing == made.end()) {
    tried.group = *std::move(group);
  } else if (!group) {
    tried.why = std::move(group).error().message;
    if (how.log && host.rank() != 0) how.log(how.name + " group: " + tried.why);
  } else {
    tried.why = "rank " + std::to_string(missing - made.begin()) + " of the group could not join";
  }
  return tried;
}

}  // namespace

base::result<std::unique_ptr<transport::collective>> form_device_group(
    transport::collective& host, const device_group_formation& how) {
  if (host.size() == 1) return through_host(host, how.queue);
  const auto say = [&](const std::string& what) {
    if (how.log && host.rank() == 0) how.log(how.name + " group: " + what);
  };
  const device_offer own = offer_of(how);
  TROUPE_TRY(offers, gather(host, how.epoch, own));
  TROUPE_TRY(path, choose_path(offers));
  if (path.direct) {
    TROUPE_TRY(tried, try_direct(host, how));
    if (tried.group) {
      say("device to device by " + std::string(offer_text(own.library)));
      return direct(std::move(tried.group), {.host = host, .on = &how.on, .epoch = how.epoch});
    }
    if (how.choice == device_collectives::nccl) {
      return base::fail(base::error_code::failed_precondition, "engine",
                        "--device-collectives nccl: " + tried.why);
    }
    path.why = std::move(tried.why);
  }
  say("through host memory: " + path.why);
  return through_host(host, how.queue);
}

}  // namespace troupe::engine
