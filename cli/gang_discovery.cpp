#include "cli/gang_discovery.hpp"

#include <utility>

#include "base/socket.hpp"
#include "base/stop_wait.hpp"
#include "lws/pod_watch.hpp"

namespace troupe::cli {
namespace {

using router::gang_place;

constexpr int looked_up = 0;  // sources
constexpr int watched = 1;

gang_place place_of(std::string name, const std::string& address, std::uint16_t port) {
  return {.name = std::move(name), .peer = net::peer_at(address, port)};
}

bool same(const std::vector<gang_place>& a, const std::vector<gang_place>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const gang_place& x, const gang_place& y) {
                      return x.name == y.name && x.peer.addresses == y.peer.addresses &&
                             x.peer.port == y.peer.port && x.terminating == y.terminating;
                    });
}

}  // namespace

base::result<void> gang_discovery::check(const discovery_options& options) {
  for (const std::string& url : options.urls) {
    TROUPE_TRY(parts, net::parse_http_url(url));
    if (parts.tls || parts.target != "/") {
      return base::fail(base::error_code::invalid_argument, "cli",
                        "--gang " + url + ": give http://host[:port] without a path");
    }
  }
  for (const std::string& name : options.names) {
    TROUPE_TRY_VOID(net::parse_http_url("http://" + name));
  }
  return {};
}

gang_discovery::gang_discovery(discovery_options options, const base::logger& log,
                               listener on_found)
    : options_(std::move(options)), log_(log), on_found_(std::move(on_found)) {
  if (!options_.urls.empty() || !options_.names.empty()) {
    threads_.emplace_back([this](const std::stop_token& stop) { look_up_all(stop); });
  }
  if (options_.selector.empty()) return;
  threads_.emplace_back([this](const std::stop_token& stop) {
    const lws::kubernetes_api api(*options_.kubernetes);
    const auto changed = [this](const std::vector<lws::found_pod>& pods) {
      std::vector<gang_place> places;
      for (const lws::found_pod& pod : pods) {
        places.push_back(place_of(pod.name, pod.address, options_.pod_port));
        places.back().terminating = pod.terminating;
      }
      publish(watched, std::move(places));
    };
    lws::watch_pods(
        api, options_.selector, changed,
        [this](const base::error& why) { log_.warning("looking for gangs: " + why.message); },
        stop);
  });
}

// A name that cannot be looked up keeps the addresses it had.
void gang_discovery::look_up_all(const std::stop_token& stop) {
  std::map<std::string, std::vector<gang_place>> known;
  std::map<std::string, std::string> complaints;
  const auto look_up = [&](const std::string& url, auto made) {
    const auto parts = net::parse_http_url(url);
    auto peer = net::look_up(*parts);
    std::string& complaint = complaints[url];
    if (peer) {
      complaint.clear();
      known[url] = made(*std::move(peer));
    } else if (std::exchange(complaint, peer.error().message) != peer.error().message) {
      log_.warning(peer.error().message);
    }
  };
  while (!stop.stop_requested()) {
    for (const std::string& url : options_.urls) {
      look_up(url, [](const net::http_peer& peer) {
        return std::vector<gang_place>{{.name = peer.authority, .peer = peer}};
      });
    }
    for (const std::string& name : options_.names) {
      look_up("http://" + name, [](const net::http_peer& peer) {
        std::vector<gang_place> places;
        for (const std::string& address : peer.addresses) {
          places.push_back(place_of(base::host_and_port(address, peer.port), address, peer.port));
        }
        return places;
      });
    }
    std::vector<gang_place> all;
    for (const auto& [url, places] : known) all.insert(all.end(), places.begin(), places.end());
    publish(looked_up, std::move(all));
    base::wait_unless_stopped(options_.interval, stop);
  }
}

void gang_discovery::publish(int source, std::vector<gang_place> places) {
  const std::lock_guard lock(mutex_);
  if (const auto before = by_source_.find(source);
      before != by_source_.end() && same(before->second, places)) {
    return;
  }
  by_source_[source] = std::move(places);
  std::vector<gang_place> all;
  for (const auto& [from, found] : by_source_) all.insert(all.end(), found.begin(), found.end());
  on_found_(std::move(all));
}

}  // namespace troupe::cli
