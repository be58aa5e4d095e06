// Real runtimes on loopback with hosts that do at once what they are asked, for tests of the
// control plane. Waits have deadlines; nothing sleeps.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "actors/gang/gang_runtime.hpp"
#include "actors/worker/worker_runtime.hpp"
#include "base/tls.hpp"
#include "tests/actors/machine_case.hpp"

namespace troupe::actors {

// Certificates of one gang, in sealed memory.
class live_credentials {
 public:
  live_credentials() : files_(base::seal_credentials(*base::make_gang_credentials()).value()) {}
  [[nodiscard]] control_plane_options plane() const {
    return {.certificate_path = base::path_of(files_.certificate),
            .key_path = base::path_of(files_.key),
            .authority_path = base::path_of(files_.authority)};
  }

 private:
  base::credential_files files_;
};

// What the shells' threads tell, and what a test waits for.
class noticeboard {
 public:
  template <class Change>
  void change(Change&& change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  template <class Holds>
  [[nodiscard]] bool wait_for(Holds&& holds, std::chrono::seconds patience = 30s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, holds);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

class live_gang_host : public gang_host {
 public:
  void begin(gang_post post) override { post_ = std::move(post); }
  void want_segment(const gang::want_segment& order) override {
    post_(gang::segment_ready{order.epoch});
  }
  void serve(const gang::serve& order) override { post_(gang::canary_done{order.epoch}); }
  void stop_serving(const gang::stop_serving&) override {}
  void view_changed(const gang_view& changed) override {
    board_.change([&] { view_ = changed; });
  }
  void log(const gang::log& line) override {
    board_.change([&] { lines_.push_back(line.line); });
  }
  void give_up(const gang::give_up&) override {}

  [[nodiscard]] bool serves(std::uint64_t number) {
    return board_.wait_for([&] { return view_.ready && view_.epoch.number == number; });
  }
  [[nodiscard]] bool sees(int rank, rank_state state) {
    return board_.wait_for(
        [&] { return view_.ranks.at(static_cast<std::size_t>(rank)).state == state; });
  }
  [[nodiscard]] bool logs(const std::string& part) {
    return board_.wait_for([&] {
      for (const std::string& line : lines_) {
        if (line.find(part) != std::string::npos) return true;
      }
      return false;
    });
  }

 private:
  gang_post post_;
  noticeboard board_;
  gang_view view_;
  std::vector<std::string> lines_;
};

class live_worker_host : public worker_host {
 public:
  void begin(worker_post post) override { post_ = std::move(post); }
  void load(const worker::load& order) override {
    board_.change([&] { ++loads_; });
    post_(worker::weights_loaded{order.load, {}});
  }
  void open_plane(const worker::open_plane& order) override {
    post_(worker::plane_opened{order.epoch, {1}});
  }
  void connect_plane(const worker::connect_plane& order) override {
    post_(worker::plane_connected{order.epoch});
  }
  void start_loop(const worker::start_loop&) override { loops_ = true; }
  void abort_plane(const worker::abort_plane& order) override {
    if (std::exchange(loops_, false)) post_(worker::loop_ended{order.epoch, "aborted"});
  }
  void log(const worker::log&) override {}
  void phase_changed(const worker::phase& phase) override {
    board_.change([&] { details_.push_back(phase.detail); });
  }
  void give_up(const worker::give_up&) override {}

  [[nodiscard]] bool says(const std::string& part, std::chrono::seconds patience = 30s) {
    return board_.wait_for(
        [&] {
          for (const std::string& detail : details_) {
            if (detail.find(part) != std::string::npos) return true;
          }
          return false;
        },
        patience);
  }
  [[nodiscard]] int loads() {
    int now = 0;
    board_.change([&] { now = loads_; });
    return now;
  }

 private:
  worker_post post_;
  noticeboard board_;
  std::vector<std::string> details_;
  int loads_ = 0;
  bool loops_ = false;  // the shell's thread only
};

struct live_worker {
  live_worker_host host;
  std::unique_ptr<worker_runtime> runtime;

  live_worker(int rank, int world, const control_plane_options& plane) {
    auto made = worker_runtime::start(
        {.worker = {.self = description(rank), .world_size = world}, .plane = plane}, host);
    EXPECT_TRUE(made) << made.error().message;
    if (made) runtime = std::move(*made);
  }
  void meet(std::uint16_t port) { runtime->post(worker::leader_at{"127.0.0.1", port}); }
};

struct live_gang {
  live_gang_host host;
  std::unique_ptr<gang_runtime> runtime;

  live_gang(int world, const control_plane_options& plane, std::uint64_t life = incarnation) {
    auto made =
        gang_runtime::start({.gang = {.rules = {.leader = description(0), .world_size = world},
                                      .incarnation = life,
                                      .wants_segment = true},
                             .plane = plane},
                            host);
    EXPECT_TRUE(made) << made.error().message;
    if (made) runtime = std::move(*made);
  }
};

}  // namespace troupe::actors
