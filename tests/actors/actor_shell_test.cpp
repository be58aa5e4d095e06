// The CAF shells in a system whose scheduler and clock are the test's.
#include <gmock/gmock.h>

#include <caf/scheduler/test_coordinator.hpp>

#include "actors/gang/gang_actor.hpp"
#include "actors/worker/worker_actor.hpp"
#include "tests/actors/machine_case.hpp"

namespace troupe::actors {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct test_config : caf::actor_system_config {
  test_config() {
    set("scheduler.policy", caf::atom("testing"));
    set("logger.console", caf::atom("NONE"));
  }
};

class shell_test : public testing::Test {
 protected:
  shell_test() : system(config), time(dynamic_cast<coordinator&>(system.scheduler())) {
    // Machines count from a moment that is not the beginning of time.
    time.advance_time(caf::timespan(1h));
  }
  using coordinator = caf::scheduler::test_coordinator;

  void settle() {
    while (time.has_job()) time.run_once();
  }
  void advance(milliseconds pause) {
    time.advance_time(caf::timespan(pause));
    settle();
  }

  test_config config;
  caf::actor_system system;
  coordinator& time;
};

// Notes what it is asked to do, by name.
class noting_worker_host : public worker_host {
 public:
  void begin(worker_post) override {}
  void load(const worker::load& order) override { note("load " + order.instruction_path); }
  void open_plane(const worker::open_plane& order) override {
    note(fmt::format("open {}", order.epoch.number));
  }
  void connect_plane(const worker::connect_plane& order) override {
    note(fmt::format("connect {} {}", order.epoch.number, order.addresses.size()));
  }
  void start_loop(const worker::start_loop& order) override {
    note(fmt::format("loop {}", order.epoch.number));
  }
  void abort_plane(const worker::abort_plane& order) override {
    note(fmt::format("abort {}", order.epoch.number));
  }
  void log(const worker::log&) override { ++lines; }
  void phase_changed(const worker::phase& phase) override { phases.push_back(phase.phase); }
  void give_up(const worker::give_up& last) override {
    note(fmt::format("give up {}", last.exit_code));
  }

  std::vector<std::string> notes;
  std::vector<schemas::rank_phase> phases;
  int lines = 0;

 private:
  void note(std::string what) { notes.push_back(std::move(what)); }
};

class worker_shell_test : public shell_test {
 protected:
  worker_shell_test() {
    // The framework follows a null pointer where a function takes no argument of its own.
    const auto notes = [this](caf::event_based_actor*, int) -> caf::behavior {
      return {[this](const worker::dial& order) { dials.push_back(order); },
              [this](const worker::hang_up&) { ++hang_ups; },
              [this](const outgoing& message) {
                said.push_back(*schemas::decode_control_message(message.bytes));
              }};
    };
    dialer = system.spawn(notes, 0);
    rank = system.spawn(worker_actor, worker_options{.self = description(1), .world_size = 2},
                        &host, dialer);
    settle();
  }
  ~worker_shell_test() override {
    caf::anon_send_exit(rank, caf::exit_reason::kill);
    caf::anon_send_exit(dialer, caf::exit_reason::kill);
    settle();
  }
  void post(worker::event event) {
    caf::anon_send(rank, std::move(event));
    settle();
  }
  template <class Body>
  void hear(Body body) {
    post(worker::received{dials.back().dial,
                          {.sender = {0}, .sequence = ++heard, .body = std::move(body)}});
  }

  noting_worker_host host;
  caf::actor dialer;
  caf::actor rank;
  std::vector<worker::dial> dials;
  int hang_ups = 0;
  std::vector<schemas::control_message> said;
  std::uint64_t heard = 0;
};

TEST_F(worker_shell_test, CarriesEveryEffectOut) {
  post(worker::started{});
  post(worker::leader_at{"leader", 8472});
  ASSERT_EQ(dials.size(), 1U);
  EXPECT_EQ(dials[0].host, "leader");
  post(worker::control_up{dials[0].dial});
  ASSERT_EQ(said.size(), 1U);
  EXPECT_EQ(std::get<schemas::join_request>(said[0].body).node, "node-1");
  hear(schemas::welcome{incarnation, "amx_bf16"});
  post(worker::weights_loaded{1, {7}});
  ASSERT_EQ(said.size(), 2U);
  EXPECT_EQ(std::get<schemas::loaded>(said[1].body).share_digest[0], 7);
  hear(schemas::prepare{epoch(1)});
  post(worker::plane_opened{epoch(1), {1}});
  hear(schemas::connect{epoch(1), {{1}, {2}}});
  post(worker::plane_connected{epoch(1)});
  EXPECT_EQ(host.phases.back(), schemas::rank_phase::serving);
  EXPECT_GT(host.lines, 0);
  post(worker::leader_unknown{});
  EXPECT_EQ(hang_ups, 1);
  EXPECT_THAT(host.notes,
              ElementsAre("load amx_bf16", "open 1", "connect 1 2", "loop 1", "abort 1"));
}

TEST_F(worker_shell_test, WakesItsMachine) {
  post(worker::started{});
  post(worker::leader_at{"leader", 8472});
  post(worker::control_up{dials[0].dial});
  advance(999ms);
  EXPECT_EQ(said.size(), 1U);
  advance(1ms);
  EXPECT_EQ(said.size(), 2U);
  advance(1000ms);
  EXPECT_EQ(said.size(), 3U);
}

TEST_F(worker_shell_test, EndsWithItsMachine) {
  post(worker::started{});
  caf::scoped_actor self(system);
  self->monitor(rank);
  post(worker::drain{0});
  EXPECT_EQ(host.notes.back(), "give up 0");
  bool ended = false;
  self->receive([&](const caf::down_msg&) { ended = true; });
  EXPECT_TRUE(ended);
}

class noting_gang_host : public gang_host {
 public:
  void begin(gang_post) override {}
  void want_segment(const gang::want_segment& order) override {
    notes.push_back(fmt::format("segment {}", order.epoch.number));
  }
  void serve(const gang::serve& order) override {
    notes.push_back(fmt::format("serve {}", order.epoch.number));
  }
  void stop_serving(const gang::stop_serving& order) override {
    notes.push_back(fmt::format("stop {}", order.epoch.number));
  }
  void view_changed(const gang_view& changed) override { view = changed; }
  void log(const gang::log& line) override { lines.push_back(line.line); }
  void give_up(const gang::give_up& last) override {
    notes.push_back(fmt::format("give up {}", last.exit_code));
  }

  std::vector<std::string> notes;
  std::vector<std::string> lines;
  gang_view view;
};

// The far end of a connection: an actor that speaks as it is told and notes what it hears.
struct far_end {
  caf::actor link;
  std::vector<schemas::control_message> heard;
  std::uint64_t said = 0;
};

class gang_shell_test : public shell_test {
 protected:
  gang_shell_test() {
    gang = system.spawn(gang_actor,
                        gang_options{.rules = {.leader = description(0), .world_size = 1},
                                     .incarnation = incarnation,
                                     .wants_segment = true},
                        &host);
    post(gang::started{});
  }
  ~gang_shell_test() override {
    for (const auto& end : ends) caf::anon_send_exit(end->link, caf::exit_reason::kill);
    caf::anon_send_exit(gang, caf::exit_reason::kill);
    settle();
  }
  void post(gang::event event) {
    caf::anon_send(gang, std::move(event));
    settle();
  }
  far_end& connect() {
    far_end& end = *ends.emplace_back(std::make_unique<far_end>());
    const auto relays = [this, &end](caf::event_based_actor* self, int) -> caf::behavior {
      return {[this, self](outgoing& message) { self->send(gang, std::move(message.bytes)); },
              [&end](const wire_bytes& bytes) {
                end.heard.push_back(*schemas::decode_control_message(bytes));
              }};
    };
    end.link = system.spawn(relays, 0);
    return end;
  }
  template <class Body>
  void say(far_end& end, Body body) {
    caf::anon_send(end.link, outgoing{schemas::encode(schemas::control_message{
                                 .sender = {0}, .sequence = ++end.said, .body = std::move(body)})});
    settle();
  }
  bool ended(const far_end& end) {
    caf::scoped_actor self(system);
    self->monitor(end.link);
    settle();
    bool down = false;
    self->receive([&](const caf::down_msg&) { down = true; }, caf::after(0ms) >> [] {});
    return down;
  }

  noting_gang_host host;
  caf::actor gang;
  std::vector<std::unique_ptr<far_end>> ends;
};

TEST_F(gang_shell_test, CarriesEveryEffectOut) {
  far_end& rank = connect();
  say(rank, description(0));
  ASSERT_EQ(rank.heard.size(), 1U);
  EXPECT_EQ(std::get<schemas::welcome>(rank.heard[0].body).incarnation, incarnation);
  say(rank, schemas::loaded{{}, "amx_bf16"});
  post(gang::segment_ready{epoch(1)});
  say(rank, schemas::prepared{epoch(1), {1}});
  say(rank, schemas::connected{epoch(1)});
  post(gang::canary_done{epoch(1)});
  EXPECT_TRUE(host.view.ready);
  EXPECT_FALSE(host.lines.empty());
  post(gang::rank_lost{{0}, "killed", 1});
  EXPECT_FALSE(host.view.ready);
  EXPECT_THAT(host.notes, ElementsAre("segment 1", "serve 1", "stop 1"));
  EXPECT_TRUE(ended(rank));
}

TEST_F(gang_shell_test, WakesItsMachine) {
  far_end& rank = connect();
  say(rank, description(0));
  advance(1000ms);
  EXPECT_EQ(rank.heard.size(), 2U);  // welcomed again
  advance(1000ms);
  EXPECT_EQ(rank.heard.size(), 3U);
}

TEST_F(gang_shell_test, ALinkThatEndsIsALostRank) {
  far_end& rank = connect();
  say(rank, description(0));
  EXPECT_EQ(host.view.ranks.at(0).state, rank_state::loading);
  caf::anon_send_exit(rank.link, caf::exit_reason::kill);
  settle();
  EXPECT_EQ(host.view.ranks.at(0).state, rank_state::absent);
}

TEST_F(gang_shell_test, ADroppedLinkIsDeafAndMute) {
  far_end& first = connect();
  say(first, description(0));
  far_end& second = connect();
  say(second, description(0));
  EXPECT_TRUE(ended(first));
  EXPECT_FALSE(ended(second));
  EXPECT_EQ(host.view.ranks.at(0).state, rank_state::loading);
  EXPECT_EQ(second.heard.size(), 1U);
}

TEST_F(gang_shell_test, WhoIsNotUnderstoodIsDropped) {
  far_end& rank = connect();
  say(rank, description(0));
  caf::anon_send(rank.link, outgoing{wire_bytes{1, 2, 3}});
  settle();
  EXPECT_TRUE(ended(rank));
  EXPECT_EQ(host.view.ranks.at(0).state, rank_state::absent);
  EXPECT_THAT(host.lines, testing::Contains(HasSubstr("not understood")));
}

TEST_F(gang_shell_test, NoPeerEndsTheGang) {
  far_end& rank = connect();
  caf::anon_send_exit(gang, caf::exit_reason::user_shutdown);
  settle();
  say(rank, description(0));
  EXPECT_EQ(rank.heard.size(), 1U);
}

TEST_F(gang_shell_test, EndsWithItsMachine) {
  caf::scoped_actor self(system);
  self->monitor(gang);
  post(gang::drain{0});
  EXPECT_EQ(host.notes.back(), "give up 0");
  bool ended = false;
  self->receive([&](const caf::down_msg&) { ended = true; });
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace troupe::actors
