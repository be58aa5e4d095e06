// The pods of a label selector as a list and the events of a watch leave them. Pure.
//
//   TROUPE_TRY(version, pods.take_list(body));          // then watch from `version` on
//   switch (pods.take_event(line)) { ... }
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace troupe::lws {

struct found_pod {
  std::string name;
  std::string address;       // numeric
  bool terminating = false;  // it has been told to go

  friend bool operator==(const found_pod&, const found_pod&) = default;
};

class pod_set {
 public:
  enum class news : std::uint8_t {
    none,  // nothing that matters here
    changed,
    expired,  // the watch must begin anew, with a list
  };

  // A PodList. Replaces what is known; returns its resourceVersion.
  // Errors: data_loss (no such list).
  [[nodiscard]] base::result<std::string> take_list(std::string_view json);
  [[nodiscard]] news take_event(std::string_view json);

  // Those that have an address and have not ended, by name.
  [[nodiscard]] std::vector<found_pod> pods() const;
  // Of the last event: where a watch that has ended goes on.
  [[nodiscard]] const std::string& version() const noexcept { return version_; }

 private:
  std::map<std::string, found_pod> pods_;
  std::string version_;
};

}  // namespace troupe::lws
