// The pods of a LeaderWorkerSet as processes of this machine: starts, probes and ends them as
// local_groups says. On one thread, that of the loop.
//
//   lws::local_run run(workload, {.folder = folder, .loop = loop, ...});
//   loop->at(..., [&] { run.tick(); });          // every 50 ms or so
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/process.hpp"
#include "lws/container_process.hpp"
#include "lws/local_groups.hpp"
#include "net/http_pool.hpp"

namespace troupe::lws {

struct local_run_options {
  std::string folder;         // private to this user and empty: pods' files and logs
  std::string path_variable;  // of containers
  std::string network;        // the first three numbers of the pods' addresses: "127.70.3."
  std::shared_ptr<net::event_loop> loop;
  std::function<void(const local_pod& pod, const std::string& what)> told;
  back_off_bounds back_off = {};
};

class local_run final : private pod_hands {
 public:
  // Blocks nothing; the first pods come with the first tick().
  local_run(workload first, local_run_options options);
  local_run(const local_run&) = delete;
  local_run& operator=(const local_run&) = delete;
  ~local_run() override;  // kills what is left

  void tick();
  void update(workload next);
  void stop();
  void kill_all();  // at once, whatever they do

  [[nodiscard]] bool ready() const { return groups_.ready(); }
  [[nodiscard]] bool ended() const { return groups_.ended(); }
  [[nodiscard]] std::vector<local_pod*> pods() const { return groups_.pods(); }
  [[nodiscard]] const workload& wanted() const { return groups_.wanted(); }

 private:
  struct connecting {  // of a probe
    base::fd socket;
    std::string address;
    std::uint16_t port = 0;
    std::uint64_t pod = 0;
    std::size_t container = 0;
    probe_kind kind = probe_kind::startup;
    int life = 0;
    time_point deadline = {};
  };
  struct child {
    std::uint64_t pod = 0;  // its number
    std::size_t container = 0;
    base::child_process process;
    // Of an exec probe.
    std::optional<probe_kind> probe = {};
    int life = 0;
    time_point deadline = {};
  };

  void start(local_pod& pod, std::size_t container) override;
  void send_signal(const local_pod& pod, std::size_t container, int number) override;
  void probe(local_pod& pod, std::size_t container, probe_kind kind) override;
  void tell(const local_pod& pod, const std::string& what) override;

  [[nodiscard]] base::result<base::child_process> spawn(const local_pod& pod, std::size_t container,
                                                        const std::vector<std::string>& words,
                                                        const std::string& log);
  [[nodiscard]] base::result<std::vector<bound_file>> files_of(const local_pod& pod,
                                                               const container_spec& container);
  void probe_http(local_pod& pod, std::size_t container, probe_kind kind, const probe_spec& how);
  void probe_exec(local_pod& pod, std::size_t container, probe_kind kind, const probe_spec& how);
  void probe_tcp(local_pod& pod, std::size_t container, probe_kind kind, const probe_spec& how);
  void look_at_children(time_point now);
  void look_at_connections(time_point now);
  void write_hosts();
  [[nodiscard]] std::string address_of(const std::string& pod);
  // nullptr: it is gone.
  [[nodiscard]] local_pod* find(std::uint64_t pod) const;

  const local_run_options options_;
  net::http_pool pool_;
  std::map<std::string, std::string> addresses_;
  local_groups groups_;
  std::list<child> children_;
  std::list<connecting> connections_;
  std::set<std::uint64_t> volumes_made_;  // pods
  int started_ = 0;
};

}  // namespace troupe::lws
