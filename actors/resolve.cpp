#include "actors/resolve.hpp"

#include <fmt/format.h>

#include <future>
#include <thread>
#include <utility>

#include "base/socket.hpp"

namespace troupe::actors {

base::result<std::vector<std::string>> resolve_within(const std::string& host,
                                                      std::chrono::milliseconds patience) {
  std::packaged_task<base::result<std::vector<std::string>>()> task(
      [host] { return base::resolve(host); });
  auto answer = task.get_future();
  std::thread(std::move(task)).detach();
  if (answer.wait_for(patience) == std::future_status::ready) return answer.get();
  return base::fail(base::error_code::deadline_exceeded, "actors",
                    fmt::format("no answer for the name {} in {} ms", host, patience.count()),
                    true);
}

}  // namespace troupe::actors
