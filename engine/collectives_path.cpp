#include "engine/collectives_path.hpp"

#include <algorithm>
#include <optional>

namespace troupe::engine {
namespace {

std::string ranks(std::size_t a, std::size_t b) {
  return "ranks " + std::to_string(a) + " and " + std::to_string(b);
}

// What two ranks have against meeting on their devices.
std::optional<std::string> obstacle(std::span<const device_offer> offers, std::size_t a,
                                    std::size_t b) {
  const bool one_host = offers[a].host == offers[b].host;
  if (one_host && offers[a].address == offers[b].address) {
    return ranks(a, b) + " of the group share the device " +
           std::string(offer_text(offers[a].address));
  }
  if (offers[a].library != offers[b].library) {
    return ranks(a, b) + " of the group have " + std::string(offer_text(offers[a].library)) +
           " and " + std::string(offer_text(offers[b].library));
  }
  // Between hosts its connections are open to whoever reaches them: only when asked for by all.
  const bool asked =
      offers[a].choice == device_collectives::nccl && offers[b].choice == device_collectives::nccl;
  if (!one_host && !asked) {
    return ranks(a, b) + " of the group are on two hosts, where it starts only when asked for";
  }
  return std::nullopt;
}

std::optional<std::string> obstacle(std::span<const device_offer> offers) {
  for (std::size_t rank = 0; rank < offers.size(); ++rank) {
    if (offers[rank].choice == device_collectives::host) {
      return "rank " + std::to_string(rank) + " of the group is told to";
    }
    if (offers[rank].available == 0) {
      return "rank " + std::to_string(rank) +
             " of the group: " + std::string(offer_text(offers[rank].library));
    }
  }
  for (std::size_t a = 0; a < offers.size(); ++a) {
    for (std::size_t b = a + 1; b < offers.size(); ++b) {
      if (auto found = obstacle(offers, a, b)) return found;
    }
  }
  return std::nullopt;
}

}  // namespace

device_offer::text offer_text(std::string_view from) {
  device_offer::text made{};
  std::copy_n(from.begin(), std::min(from.size(), made.size()), made.begin());
  return made;
}

std::string_view offer_text(const device_offer::text& from) noexcept {
  const auto end = std::find(from.begin(), from.end(), '\0');
  return {from.data(), static_cast<std::size_t>(end - from.begin())};
}

base::result<collectives_path> choose_path(std::span<const device_offer> offers) {
  const auto against = obstacle(offers);
  if (!against) return collectives_path{.direct = true, .why = {}};
  const bool insists = std::any_of(offers.begin(), offers.end(), [](const device_offer& offer) {
    return offer.choice == device_collectives::nccl;
  });
  if (!insists) return collectives_path{.direct = false, .why = *against};
  return base::fail(base::error_code::failed_precondition, "engine",
                    "--device-collectives nccl: " + *against + "; auto takes what there is");
}

}  // namespace troupe::engine
