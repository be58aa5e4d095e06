// The groups of a LeaderWorkerSet on this machine, as LWS's controller keeps them: which pods there
// are, when a group is made anew, in what order a new revision comes. Pure but for its pods' hands.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lws/local_pod.hpp"

namespace troupe::lws {

struct groups_options {
  std::function<std::string(const std::string& pod)> address_of;  // the same at every call
  back_off_bounds back_off = {};
};

class local_groups {
 public:
  // `hands` outlives this.
  local_groups(workload first, groups_options options, pod_hands& hands);
  local_groups(const local_groups&) = delete;
  local_groups& operator=(const local_groups&) = delete;
  ~local_groups() = default;

  void tick(time_point now);
  // Another number of groups, and other templates: those come group by group.
  void update(workload next);
  // All go; nothing comes any more.
  void stop(time_point now);

  [[nodiscard]] bool ready() const;  // all pods, of the present revision where it may be
  [[nodiscard]] bool ended() const { return stopping_ && groups_.empty(); }
  // All that there are.
  [[nodiscard]] std::vector<local_pod*> pods() const;
  [[nodiscard]] const workload& wanted() const noexcept { return *wanted_; }
  // Names of all pods that may come, with their subdomains: llm-0.llm.default.
  [[nodiscard]] std::vector<pod_identity> identities() const;

 private:
  struct group {
    std::shared_ptr<const workload> of;
    std::vector<std::unique_ptr<local_pod>> pods = {};  // the leader first
    bool was_started = false;
    bool going = false;
  };

  [[nodiscard]] pod_identity identity(const workload& of, int group, int index) const;
  void make_pods(int number, group& one);
  void keep(int number, group& one, time_point now);
  void end(group& one, time_point now);
  void roll(time_point now);
  [[nodiscard]] bool rolls() const;
  [[nodiscard]] int groups_wanted() const;
  [[nodiscard]] bool first_are_ready() const;
  [[nodiscard]] static bool is_ready(const group& one);

  std::shared_ptr<const workload> wanted_;
  const groups_options options_;
  pod_hands& hands_;
  std::map<int, group> groups_;
  std::uint64_t pods_made_ = 0;
  bool stopping_ = false;
};

}  // namespace troupe::lws
