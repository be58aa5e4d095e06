// Groups of pods without processes: what starts when, what comes again, in what order revisions
// change. Time is the test's.
#include "lws/local_groups.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <random>
#include <set>

#include "lws/local_environment.hpp"

namespace troupe::lws {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Containers that run until they are told, and probes that say what `ready` has for their pod.
class fake_hands final : public pod_hands {
 public:
  using key = std::pair<std::uint64_t, std::size_t>;

  void start(local_pod& pod, std::size_t container) override {
    running[{pod.who().number, container}] = &pod;
    started.push_back(pod.who().name + "/" + pod.container(container).name);
  }
  void send_signal(const local_pod& pod, std::size_t container, int number) override {
    signals.emplace_back(pod.who().name, number);
    if (number == SIGKILL || ends_on_term) dying.insert({pod.who().number, container});
  }
  void probe(local_pod& pod, std::size_t container, probe_kind kind) override {
    probes.push_back({&pod, container, kind, pod.life_of(container)});
  }
  void tell(const local_pod& pod, const std::string& what) override {
    told.push_back(pod.who().name + ": " + what);
  }

  struct asked {
    local_pod* pod;
    std::size_t container;
    probe_kind kind;
    int life;
  };
  std::map<key, local_pod*> running;
  std::set<key> dying;
  std::vector<asked> probes;
  std::vector<std::string> started;
  std::vector<std::string> told;
  std::vector<std::pair<std::string, int>> signals;
  std::set<std::string> unready;  // pods whose probes fail
  bool ends_on_term = true;
};

workload usual(int replicas = 2, int size = 2) {
  workload of;
  of.name = "llm";
  of.replicas = replicas;
  of.size = size;
  of.restart = restart_rule::none;
  of.revision = "r1";
  container_spec container{.name = "c", .words = {"run"}};
  container.readiness = probe_spec{.path = "/ready", .port = "80", .period_s = 1};
  of.leader.containers = {container};
  of.worker.containers = {container};
  return of;
}

struct world {
  explicit world(workload of)
      : groups(std::move(of), {.address_of = [](const std::string& pod) { return "at-" + pod; }},
               hands) {}

  void step(milliseconds time = milliseconds(100)) {
    now += time;
    for (const auto& key : std::exchange(hands.dying, {})) {
      const auto found = hands.running.find(key);
      if (found == hands.running.end()) continue;
      local_pod* const pod = found->second;
      hands.running.erase(found);
      pod->exited(key.second, "ended", true, now);
    }
    for (const fake_hands::asked& one : std::exchange(hands.probes, {})) {
      if (!hands.running.contains({one.pod->who().number, one.container})) continue;
      one.pod->probed(one.container, one.kind, one.life,
                      !hands.unready.contains(one.pod->who().name), now);
    }
    groups.tick(now);
    most = std::max(most, groups.pods().size());
    int serving = 0;
    for (const local_pod* pod : groups.pods()) serving += pod->who().index == 0 && pod->ready();
    least_ready = std::min(least_ready, serving);
  }
  void run(seconds time) {
    for (milliseconds spent(0); spent < time; spent += milliseconds(100)) step();
  }
  [[nodiscard]] bool ready_within(seconds time) {
    for (milliseconds spent(0); spent < time && !groups.ready(); spent += milliseconds(100)) step();
    return groups.ready();
  }
  [[nodiscard]] local_pod* pod(const std::string& name) {
    for (local_pod* const one : groups.pods()) {
      if (one->who().name == name) return one;
    }
    return nullptr;
  }
  void kill(const std::string& name) {
    local_pod* const one = pod(name);
    hands.running.erase({one->who().number, 0});
    one->exited(0, "killed", false, now);
  }
  [[nodiscard]] std::map<std::string, std::uint64_t> numbers() const {
    std::map<std::string, std::uint64_t> all;
    for (const local_pod* one : groups.pods()) all[one->who().name] = one->who().number;
    return all;
  }

  fake_hands hands;
  local_groups groups;
  time_point now{};
  std::size_t most = 0;
  int least_ready = 1000;
};

TEST(LocalGroups, StartAllPodsAtOnce) {
  world all(usual());
  all.step();
  EXPECT_EQ(all.hands.started,
            (std::vector<std::string>{"llm-0/c", "llm-0-1/c", "llm-1/c", "llm-1-1/c"}));
  EXPECT_TRUE(all.ready_within(seconds(3)));
}

TEST(LocalGroups, WorkersWaitForTheirLeaderWhereTheyShould) {
  workload of = usual(1, 3);
  of.leader_first = true;
  world all(of);
  all.hands.unready = {"llm-0"};
  all.run(seconds(3));
  EXPECT_EQ(all.hands.started.size(), 1U);
  all.hands.unready.clear();
  EXPECT_TRUE(all.ready_within(seconds(5)));
  EXPECT_EQ(all.hands.started.size(), 3U);
}

TEST(LocalGroups, FirstContainersRunOneAfterTheOther) {
  workload of = usual(1, 1);
  of.leader.first = {container_spec{.name = "a", .words = {"a"}},
                     container_spec{.name = "b", .words = {"b"}}};
  world all(of);
  all.run(seconds(1));
  EXPECT_EQ(all.hands.started, (std::vector<std::string>{"llm-0/a"}));
  all.hands.dying.insert({all.pod("llm-0")->who().number, 0});
  all.run(seconds(1));
  EXPECT_EQ(all.hands.started.back(), "llm-0/b");
  all.hands.dying.insert({all.pod("llm-0")->who().number, 1});
  EXPECT_TRUE(all.ready_within(seconds(3)));
  EXPECT_EQ(all.hands.started.back(), "llm-0/c");
}

TEST(LocalGroups, AContainerComesAgainInItsPlaceWithABackOff) {
  world all(usual(1, 2));
  ASSERT_TRUE(all.ready_within(seconds(3)));
  const auto before = all.numbers();
  const auto starts = [&] { return all.hands.started.size(); };
  all.kill("llm-0-1");  // at once
  all.step();
  EXPECT_EQ(starts(), 3U);
  for (const int wait_s : {10, 20, 40, 80, 160, 300, 300}) {
    all.kill("llm-0-1");
    const std::size_t had = starts();
    all.run(seconds(wait_s - 1));
    EXPECT_EQ(starts(), had) << wait_s;
    all.run(seconds(2));
    EXPECT_EQ(starts(), had + 1) << wait_s;
  }
  EXPECT_EQ(all.numbers(), before);
  EXPECT_TRUE(all.ready_within(seconds(3)));
}

TEST(LocalGroups, RecreateTheGroupAndNoOther) {
  workload of = usual();
  of.restart = restart_rule::on_pod_restart;
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  const auto before = all.numbers();
  all.kill("llm-0-1");
  all.run(seconds(1));
  ASSERT_TRUE(all.ready_within(seconds(5)));
  const auto after = all.numbers();
  EXPECT_NE(after.at("llm-0"), before.at("llm-0"));
  EXPECT_NE(after.at("llm-0-1"), before.at("llm-0-1"));
  EXPECT_EQ(after.at("llm-1"), before.at("llm-1"));
}

TEST(LocalGroups, AfterStartRecreateOnlyWhatHasStarted) {
  workload of = usual(1, 2);
  of.restart = restart_rule::after_start;
  of.worker.containers[0].startup = probe_spec{.path = "/", .period_s = 1, .failures = 100};
  world all(of);
  all.hands.unready = {"llm-0-1"};
  all.run(seconds(2));
  const auto before = all.numbers();
  all.kill("llm-0");
  all.run(seconds(2));
  EXPECT_EQ(all.numbers(), before) << "not all had started";
  all.hands.unready.clear();
  ASSERT_TRUE(all.ready_within(seconds(5)));
  all.run(seconds(1));
  EXPECT_NE(all.numbers(), before) << "a restart of the group's counts once all have started";
}

TEST(LocalGroups, AFailedLivenessProbeEndsTheContainer) {
  workload of = usual(1, 1);
  of.leader.containers[0].liveness = probe_spec{.path = "/", .period_s = 1, .failures = 3};
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  all.hands.unready = {"llm-0"};
  all.run(seconds(10));
  EXPECT_EQ(all.hands.signals.front(), (std::pair<std::string, int>{"llm-0", SIGTERM}));
  all.hands.unready.clear();
  EXPECT_TRUE(all.ready_within(seconds(60)));
  EXPECT_GE(all.pod("llm-0")->restarts(), 1);
}

TEST(LocalGroups, AreKilledWhenTheirGraceIsOver) {
  workload of = usual(1, 1);
  of.leader.grace_s = 5;
  of.leader.containers[0].pre_stop_s = 2;
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  all.hands.ends_on_term = false;
  workload next = of;
  next.revision = "r2";
  all.groups.update(next);
  all.run(seconds(1));
  EXPECT_TRUE(all.hands.signals.empty()) << "it sleeps before SIGTERM";
  all.run(seconds(2));
  ASSERT_EQ(all.hands.signals.size(), 1U);
  EXPECT_EQ(all.hands.signals.back().second, SIGTERM);
  all.run(seconds(1));
  EXPECT_EQ(all.hands.signals.size(), 1U);
  all.run(seconds(3));
  EXPECT_EQ(all.hands.signals.back().second, SIGKILL);
  EXPECT_TRUE(all.ready_within(seconds(5)));
}

TEST(LocalGroups, ASurgeKeepsAllServing) {
  workload of = usual(3, 2);
  of.max_unavailable = 0;
  of.max_surge = 1;
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  const auto before = all.numbers();
  workload next = of;
  next.revision = "r2";
  all.least_ready = 3;
  all.groups.update(next);
  ASSERT_TRUE(all.ready_within(seconds(120)));
  all.run(seconds(5));
  EXPECT_EQ(all.least_ready, 3);
  EXPECT_EQ(all.most, 8U);
  EXPECT_EQ(all.groups.pods().size(), 6U);
  for (const auto& [name, number] : all.numbers()) EXPECT_NE(number, before.at(name)) << name;
}

TEST(LocalGroups, RollFromTheLastToThePartition) {
  workload of = usual(4, 1);
  of.partition = 1;
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  workload next = of;
  next.revision = "r2";
  all.hands.started.clear();
  all.least_ready = 4;
  all.groups.update(next);
  all.run(seconds(60));
  EXPECT_EQ(all.hands.started, (std::vector<std::string>{"llm-3/c", "llm-2/c", "llm-1/c"}));
  EXPECT_EQ(all.pod("llm-0")->of().revision, "r1");
  EXPECT_EQ(all.pod("llm-1")->of().revision, "r2");
  EXPECT_EQ(all.least_ready, 3);
}

TEST(LocalGroups, BelowThePartitionTheFormerRevisionComesAgain) {
  workload of = usual(2, 1);
  of.partition = 1;
  of.restart = restart_rule::on_pod_restart;
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  workload next = of;
  next.revision = "r2";
  all.groups.update(next);
  all.run(seconds(20));
  for (const char* pod : {"llm-0", "llm-1"}) {
    const auto before = all.numbers();
    all.kill(pod);
    all.run(seconds(5));
    EXPECT_NE(all.numbers().at(pod), before.at(pod));
  }
  EXPECT_EQ(all.pod("llm-0")->of().revision, "r1");
  EXPECT_EQ(all.pod("llm-1")->of().revision, "r2");
}

TEST(LocalGroups, ARolloutThatDoesNotGetReadyGoesNoFurther) {
  workload of = usual(3, 1);
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  workload next = of;
  next.revision = "r2";
  all.hands.unready = {"llm-2"};
  all.groups.update(next);
  all.run(seconds(60));
  EXPECT_EQ(all.pod("llm-2")->of().revision, "r2");
  EXPECT_EQ(all.pod("llm-1")->of().revision, "r1");
  EXPECT_EQ(all.pod("llm-0")->of().revision, "r1");
}

TEST(LocalGroups, FollowTheNumberOfReplicas) {
  world all(usual(1, 2));
  ASSERT_TRUE(all.ready_within(seconds(3)));
  all.groups.update(usual(3, 2));
  ASSERT_TRUE(all.ready_within(seconds(5)));
  EXPECT_EQ(all.groups.pods().size(), 6U);
  all.groups.update(usual(1, 2));
  all.run(seconds(5));
  EXPECT_EQ(all.groups.pods().size(), 2U);
  EXPECT_TRUE(all.groups.ready());
}

TEST(LocalGroups, EndAtOnceAndForGood) {
  workload of = usual();
  of.leader.containers[0].pre_stop_s = 60;
  world all(of);
  ASSERT_TRUE(all.ready_within(seconds(3)));
  all.groups.stop(all.now);
  all.run(seconds(1));
  EXPECT_TRUE(all.groups.ended());
  EXPECT_TRUE(all.hands.running.empty());
}

// Whatever dies when, every group is whole again, and no pod runs twice.
TEST(LocalGroups, MendAfterAnyLosses) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 random(seed);
    workload of = usual(1 + static_cast<int>(random() % 3), 1 + static_cast<int>(random() % 3));
    of.restart = static_cast<restart_rule>(random() % 3);
    of.max_surge = static_cast<int>(random() % 2);
    world all(of);
    for (int event = 0; event < 40; ++event) {
      all.run(seconds(random() % 4));
      if (!all.hands.running.empty() && random() % 2 == 0) {
        auto at = all.hands.running.begin();
        std::advance(at, static_cast<long>(random() % all.hands.running.size()));
        const auto [key, pod] = *at;
        all.hands.running.erase(at);
        pod->exited(key.second, "killed", false, all.now);
      } else if (random() % 4 == 0) {
        workload next = all.groups.wanted();
        next.revision = std::to_string(event);
        next.replicas = 1 + static_cast<int>(random() % 3);
        all.groups.update(next);
      }
      std::set<std::string> names;
      for (const local_pod* pod : all.groups.pods()) {
        ASSERT_TRUE(names.insert(pod->who().name).second) << "seed " << seed;
      }
    }
    ASSERT_TRUE(all.ready_within(seconds(4000))) << "seed " << seed;
    all.run(seconds(2));  // what came for a rollout goes
    EXPECT_EQ(all.groups.pods().size(),
              static_cast<std::size_t>(all.groups.wanted().replicas * of.size))
        << "seed " << seed;
  }
}

// --- what a container finds ---------------------------------------------------------------------

TEST(LocalEnvironment, IsThatOfLws) {
  workload of = usual(2, 3);
  of.unique_subdomains = true;
  of.subgroup_size = 3;
  of.worker.containers[0].environment = {
      {.name = "A", .value = "$(LWS_GROUP_SIZE) of $(NOBODY) at $$5"},
      {.name = "ADDRESS", .field = "status.podIP"},
      {.name = "REVISION",
       .field = "metadata.labels['leaderworkerset.sigs.k8s.io/template-revision-hash']"},
      {.name = "SUBGROUP",
       .field = "metadata.annotations['leaderworkerset.sigs.k8s.io/subgroup-size']"},
      {.name = "B", .value = "$(ADDRESS):80"}};
  world all(of);
  all.step();
  const local_pod& pod = *all.pod("llm-1-2");
  const auto environment = container_environment(pod, pod.container(0), "/bin");
  ASSERT_TRUE(environment) << environment.error().message;
  const std::set<std::string> words(environment->begin(), environment->end());
  for (const char* word : {"LWS_LEADER_ADDRESS=llm-1.llm-1.default", "LWS_GROUP_SIZE=3",
                           "LWS_WORKER_INDEX=2", "A=3 of $(NOBODY) at $5", "ADDRESS=at-llm-1-2",
                           "B=at-llm-1-2:80", "REVISION=r1", "SUBGROUP=3", "PATH=/bin"}) {
    EXPECT_TRUE(words.contains(word)) << word;
  }
  EXPECT_EQ(expand_words({"x$(LWS_WORKER_INDEX)"}, *environment), std::vector<std::string>{"x2"});
  const std::string hosts = hosts_file(of, all.groups.identities());
  EXPECT_NE(hosts.find("at-llm-1-2 llm-1-2.llm-1.default.svc.cluster.local "), std::string::npos)
      << hosts;
}

}  // namespace
}  // namespace troupe::lws
