// Asks every gang again and again whether it is ready, and what models it has. On the loop's
// thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/http_pool.hpp"
#include "router/gang_table.hpp"

namespace troupe::router {

struct probe_bounds {
  std::string path = "/ready";  // /health for servers without it
  std::chrono::milliseconds interval{500};
  std::chrono::milliseconds suspect_interval{100};  // of one that is not ready
  std::chrono::milliseconds patience{2'000};
  // A gang that answers no probe for so long is taken for lost with all that is open there: a
  // machine without power resets no connection.
  std::chrono::milliseconds lost_after{5'000};
  std::size_t answer_bytes_max = std::size_t{256} << 10;
};

struct probe_calls {
  std::function<void(gang& of)> changed;                       // ready or not any more
  std::function<void(gang& of, const std::string& why)> lost;  // again at each probe
};

class gang_prober {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  // `authorization` goes with what needs a key; may be empty. The pool outlives this.
  gang_prober(net::http_pool& pool, probe_bounds bounds, std::string authorization,
              probe_calls calls);
  gang_prober(const gang_prober&) = delete;
  gang_prober& operator=(const gang_prober&) = delete;
  ~gang_prober();

  // Asks those whose time it is.
  void tick(const std::vector<std::shared_ptr<gang>>& gangs, time_point now);
  // Not ready until it says so again.
  void suspect(gang& of, const std::string& why);

 private:
  struct reply {
    int status = 0;
    std::string body;
    std::string error;  // empty: there is an answer
  };

  void ask(const std::shared_ptr<gang>& one, const std::string& path,
           const std::function<void(const std::shared_ptr<gang>&, const reply&)>& then);
  void on_ready_reply(const std::shared_ptr<gang>& one, const reply& told);
  void set_ready(gang& of, bool ready, std::string why_not);

  net::http_pool& pool_;
  const probe_bounds bounds_;
  const std::string authorization_;
  const probe_calls calls_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // false: answers come too late
};

}  // namespace troupe::router
