#include "lws/pod_watch.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "base/stop_wait.hpp"

namespace troupe::lws {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds list_patience{30};
// The server ends a watch after this; client-go takes 5 to 10 minutes.
constexpr seconds watch_time{300};
constexpr seconds watch_margin{15};
constexpr milliseconds pause_min{500};
constexpr milliseconds pause_max{30'000};

}  // namespace

void watch_pods(const kubernetes_api& api, const std::string& label_selector,
                const std::function<void(std::vector<found_pod> pods)>& changed,
                const std::function<void(const base::error& why)>& failed,
                const std::stop_token& stop) {
  const std::string pods = fmt::format("/api/v1/namespaces/{}/pods?labelSelector={}",
                                       api.access().namespace_name, query_value(label_selector));
  pod_set known;
  bool listed = false;
  milliseconds pause = pause_min;
  const auto list = [&]() -> base::result<void> {
    TROUPE_TRY(body, api.get(pods, list_patience, stop));
    TROUPE_TRY_VOID(known.take_list(body));
    listed = true;
    changed(known.pods());
    return {};
  };
  const auto watch = [&]() -> base::result<void> {
    const std::string path =
        fmt::format("{}&watch=1&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
                    pods, watch_time.count(), known.version());
    const auto on_line = [&](std::string_view line) {
      const pod_set::news news = known.take_event(line);
      if (news == pod_set::news::changed) changed(known.pods());
      listed = news != pod_set::news::expired;
      return listed;
    };
    auto ended = api.watch(path, watch_time + watch_margin, on_line, stop);
    if (!ended && ended.error().code == base::error_code::out_of_range) listed = false;  // 410
    return ended;
  };
  while (!stop.stop_requested()) {
    const auto begin = std::chrono::steady_clock::now();
    const bool watched = listed;
    const auto done = watched ? watch() : list();
    if (stop.stop_requested()) return;
    if (done) {
      pause = pause_min;
      // A server that ends every watch at once is not asked in a circle.
      if (watched && std::chrono::steady_clock::now() - begin < pause_min)
        base::wait_unless_stopped(pause_min, stop);
      continue;
    }
    failed(done.error());
    base::wait_unless_stopped(pause, stop);
    pause = std::min(pause * 2, pause_max);
  }
}

}  // namespace troupe::lws
