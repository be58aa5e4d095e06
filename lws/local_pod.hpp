// One pod of a LeaderWorkerSet on this machine: when its containers start, start again, are probed
// and end. Decides as a kubelet would; what is done, its hands do. No clock and no process of its
// own.
//
//   first containers, one after the other -> all others run -> stop() -> SIGTERM .. SIGKILL ->
//   ended
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lws/workload.hpp"

namespace troupe::lws {

using time_point = std::chrono::steady_clock::time_point;

struct pod_identity {
  std::string name;       // llm-0, llm-0-1
  std::string subdomain;  // of its headless Service
  std::string address;    // numeric, its own
  int group = 0;
  int index = 0;             // in the group; 0 is the leader
  std::uint64_t number = 0;  // of this pod alone: one that comes in its place has another
};

enum class probe_kind : std::uint8_t { startup, readiness, liveness };

// One that the container has.
[[nodiscard]] const probe_spec& probe_of(const container_spec& container, probe_kind kind);

class local_pod;

class pod_hands {
 public:
  pod_hands() = default;
  pod_hands(const pod_hands&) = delete;
  pod_hands& operator=(const pod_hands&) = delete;
  virtual ~pod_hands() = default;

  // `container` counts the first ones, then the others. Later local_pod::exited() is called.
  virtual void start(local_pod& pod, std::size_t container) = 0;
  virtual void send_signal(const local_pod& pod, std::size_t container, int number) = 0;
  // Later local_pod::probed() is called, with the same life.
  virtual void probe(local_pod& pod, std::size_t container, probe_kind kind) = 0;
  virtual void tell(const local_pod& pod, const std::string& what) = 0;
};

// Kubelet's: at once, then 10 s, doubled up to 5 minutes, forgotten after 10.
struct back_off_bounds {
  std::chrono::milliseconds first{10'000};
  std::chrono::milliseconds most{300'000};
  std::chrono::milliseconds forgotten{600'000};
};

class local_pod {
 public:
  local_pod(pod_identity who, std::shared_ptr<const workload> of, pod_hands& hands,
            back_off_bounds back_off);
  local_pod(const local_pod&) = delete;
  local_pod& operator=(const local_pod&) = delete;
  ~local_pod() = default;

  void tick(time_point now);
  void exited(std::size_t container, const std::string& how, bool clean, time_point now);
  // `life` is that of the container when the probe began.
  void probed(std::size_t container, probe_kind kind, int life, bool good, time_point now);
  // `at_once`: without the sleep before SIGTERM, where nobody sends it requests any more.
  void stop(time_point now, bool at_once = false);

  [[nodiscard]] bool ready() const noexcept;
  // Every container has started, and what has a startup probe has passed it.
  [[nodiscard]] bool started() const noexcept;
  [[nodiscard]] bool stopping() const noexcept { return stop_at_.has_value(); }
  [[nodiscard]] bool ended() const noexcept;
  [[nodiscard]] int restarts() const noexcept;

  [[nodiscard]] const pod_identity& who() const noexcept { return who_; }
  [[nodiscard]] const workload& of() const noexcept { return *of_; }
  [[nodiscard]] const pod_spec& spec() const noexcept {
    return who_.index == 0 ? of_->leader : of_->worker;
  }
  [[nodiscard]] const container_spec& container(std::size_t at) const;
  [[nodiscard]] int life_of(std::size_t container) const { return states_.at(container).life; }

 private:
  struct probe_state {
    time_point next = {};
    bool asked = false;
    int bad = 0;
  };
  struct container_state {
    bool running = false;
    bool done = false;  // one of the first, and it has ended well
    bool started = false;
    bool ready = false;
    int life = 0;
    int restarts = 0;
    time_point since = {};
    time_point not_before = {};
    std::chrono::milliseconds back_off{0};
    std::optional<time_point> kill_at = {};
    probe_state startup = {};
    probe_state readiness = {};
    probe_state liveness = {};
  };

  [[nodiscard]] bool is_first(std::size_t at) const { return at < spec().first.size(); }
  void run(std::size_t at, time_point now);
  void keep(std::size_t at, time_point now);
  void look(std::size_t at, probe_kind kind, const std::optional<probe_spec>& how, time_point now);
  void end(std::size_t at, time_point now, std::chrono::milliseconds grace);
  void note_ready();
  static probe_state& state_of(container_state& of, probe_kind kind);

  const pod_identity who_;
  const std::shared_ptr<const workload> of_;
  pod_hands& hands_;
  const back_off_bounds back_off_;
  std::vector<container_state> states_;  // the first ones, then the others
  std::optional<time_point> stop_at_;    // asked to go
  bool at_once_ = false;
  bool told_ready_ = false;
};

}  // namespace troupe::lws
