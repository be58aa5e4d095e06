#include "actors/resolve.hpp"

#include <fmt/format.h>

#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include "base/socket.hpp"

namespace troupe::actors {
namespace {

using addresses = base::result<std::vector<std::string>>;

// The one that has not answered yet, if there is one.
struct open_lookup {
  std::string host;
  std::shared_future<addresses> answer;
};

std::shared_future<addresses> look_up(const std::string& host) {
  static std::mutex mutex;
  static open_lookup last;
  const std::scoped_lock lock(mutex);
  const bool runs = last.answer.valid() &&
                    last.answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  if (runs && last.host == host) return last.answer;
  std::packaged_task<addresses()> task([host] { return base::resolve(host); });
  last = {.host = host, .answer = task.get_future().share()};
  std::thread(std::move(task)).detach();
  return last.answer;
}

}  // namespace

base::result<std::vector<std::string>> resolve_within(const std::string& host,
                                                      std::chrono::milliseconds patience) {
  const std::shared_future<addresses> answer = look_up(host);
  if (answer.wait_for(patience) == std::future_status::ready) return answer.get();
  return base::fail(
      base::error_code::deadline_exceeded, "actors",
      fmt::format("no answer for host '{}' within {} ms: check the DNS", host, patience.count()),
      true);
}

}  // namespace troupe::actors
