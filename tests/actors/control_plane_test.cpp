// Real actor systems over loopback and mutual TLS, all in one process.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "base/socket.hpp"
#include "tests/actors/live_gang.hpp"

namespace troupe::actors {
namespace {

using testing::HasSubstr;

TEST(ControlPlane, AGangFormsOverMutualTls) {
  const live_credentials ours;
  live_worker first(0, 2, ours.plane());
  live_worker second(1, 2, ours.plane());
  live_gang gang(2, ours.plane());
  EXPECT_EQ(gang.runtime->host(), "127.0.0.1");
  ASSERT_NE(gang.runtime->port(), 0);
  first.meet(gang.runtime->port());
  second.meet(gang.runtime->port());
  EXPECT_TRUE(gang.host.serves(1));
  EXPECT_TRUE(first.host.says("serves in epoch 1"));
  EXPECT_TRUE(second.host.says("serves in epoch 1"));
}

TEST(ControlPlane, ForeignCertificatesAreRefused) {
  const live_credentials ours;
  const live_credentials theirs;
  live_gang gang(1, ours.plane());
  live_worker foreigner(0, 1, theirs.plane());
  foreigner.meet(gang.runtime->port());
  EXPECT_TRUE(foreigner.host.says("certificate"));
  EXPECT_TRUE(gang.host.sees(0, rank_state::absent));
  live_worker member(0, 1, ours.plane());
  member.meet(gang.runtime->port());
  EXPECT_TRUE(gang.host.serves(1));
}

TEST(ControlPlane, ARankThatEndsIsNoticedAndComesBack) {
  const live_credentials ours;
  live_gang gang(2, ours.plane());
  live_worker first(0, 2, ours.plane());
  auto second = std::make_unique<live_worker>(1, 2, ours.plane());
  first.meet(gang.runtime->port());
  second->meet(gang.runtime->port());
  ASSERT_TRUE(gang.host.serves(1));
  second.reset();
  EXPECT_TRUE(gang.host.sees(1, rank_state::absent));
  live_worker again(1, 2, ours.plane());
  again.meet(gang.runtime->port());
  EXPECT_TRUE(gang.host.serves(2));
  EXPECT_EQ(first.host.loads(), 1);  // it has kept its weights
}

TEST(ControlPlane, ALeaderThatRestartsFindsItsWorkers) {
  const live_credentials ours;
  live_worker first(0, 2, ours.plane());
  live_worker second(1, 2, ours.plane());
  {
    live_gang gang(2, ours.plane());
    first.meet(gang.runtime->port());
    second.meet(gang.runtime->port());
    ASSERT_TRUE(gang.host.serves(1));
  }
  live_gang gang(2, ours.plane(), incarnation + 1);
  first.meet(gang.runtime->port());
  second.meet(gang.runtime->port());
  EXPECT_TRUE(gang.host.serves(1));
  EXPECT_EQ(first.host.loads() + second.host.loads(), 2);
}

TEST(ControlPlane, ARefusalReachesTheRankAndTheLog) {
  const live_credentials ours;
  live_gang gang(2, ours.plane());
  live_worker stranger(7, 8, ours.plane());
  stranger.meet(gang.runtime->port());
  EXPECT_TRUE(stranger.host.says("is refused, asks again: rank 7 (node-7) is not in a gang of 2"));
  EXPECT_TRUE(gang.host.logs("refused: rank 7"));
}

TEST(ControlPlane, ALostRankIsHungUpOnAndJoinsAgain) {
  const live_credentials ours;
  live_gang gang(1, ours.plane());
  live_worker rank(0, 1, ours.plane());
  rank.meet(gang.runtime->port());
  ASSERT_TRUE(gang.host.serves(1));
  gang.runtime->post(gang::rank_lost{{0}, "a false alarm", 0});
  EXPECT_TRUE(gang.host.serves(2));
  EXPECT_TRUE(rank.host.says("the leader has hung up"));
}

TEST(ControlPlane, APortThatAcceptsAndSaysNothingIsGivenUpOn) {
  const live_credentials ours;
  const auto silent = base::listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(silent);
  control_plane_options plane = ours.plane();
  plane.dial_patience = 200ms;
  live_worker rank(0, 1, plane);
  rank.meet(silent->port);
  EXPECT_TRUE(rank.host.says("accepts connections and says nothing"));
  // And the next leader is found: nothing hangs.
  live_gang gang(1, ours.plane());
  rank.meet(gang.runtime->port());
  EXPECT_TRUE(gang.host.serves(1));
}

TEST(ControlPlane, NothingListeningIsSaid) {
  const live_credentials ours;
  std::uint16_t port = 0;
  {
    const auto gone = base::listen_on({.host = "127.0.0.1"});
    ASSERT_TRUE(gone);
    port = gone->port;
  }
  live_worker rank(0, 1, ours.plane());
  rank.meet(port);
  EXPECT_TRUE(rank.host.says("looks for the leader at 127.0.0.1:" + std::to_string(port)));
}

TEST(ControlPlane, CredentialsAreCheckedBeforeAnythingStarts) {
  const live_credentials ours;
  const live_credentials theirs;
  control_plane_options missing = ours.plane();
  missing.key_path = "no/such/key.pem";
  control_plane_options mixed = ours.plane();
  mixed.key_path = theirs.plane().key_path;
  control_plane_options empty = ours.plane();
  empty.authority_path = "/dev/null";
  for (const control_plane_options& plane : {missing, mixed, empty}) {
    live_worker_host worker;
    EXPECT_FALSE(worker_runtime::start(
        {.worker = {.self = description(0), .world_size = 1}, .plane = plane}, worker));
    live_gang_host gang;
    EXPECT_FALSE(gang_runtime::start(
        {.gang = {.rules = {.leader = description(0)}, .incarnation = incarnation}, .plane = plane},
        gang));
  }
  live_worker_host worker;
  const auto refused = worker_runtime::start(
      {.worker = {.self = description(0), .world_size = 1}, .plane = missing}, worker);
  EXPECT_THAT(refused.error().message, HasSubstr("no/such/key.pem"));
  EXPECT_EQ(refused.error().code, base::error_code::failed_precondition);
}

TEST(ControlPlane, APortInUseIsRefusedByName) {
  const live_credentials ours;
  const auto taken = base::listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(taken);
  live_gang_host host;
  const auto refused = gang_runtime::start(
      {.gang = {.rules = {.leader = description(0)}, .incarnation = incarnation},
       .plane = ours.plane(),
       .listen_port = taken->port},
      host);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, base::error_code::unavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("127.0.0.1:" + std::to_string(taken->port)));
}

TEST(ControlPlane, PostsAfterTheRuntimeHasGoneAreNothing) {
  const live_credentials ours;
  struct keeping_host : live_worker_host {
    void begin(worker_post post) override {
      kept = post;
      live_worker_host::begin(std::move(post));
    }
    worker_post kept;
  } keeping;
  auto runtime = worker_runtime::start(
      {.worker = {.self = description(0), .world_size = 1}, .plane = ours.plane()}, keeping);
  ASSERT_TRUE(runtime);
  runtime->reset();
  keeping.kept(worker::timer{});
}

// Carries bytes between two sockets until it is frozen: then both ends hear nothing any more, and
// no connection is closed.
class relay {
 public:
  explicit relay(std::uint16_t target)
      : listening_(base::listen_on({.host = "127.0.0.1"}).value()),
        thread_([this, target] { run(target); }) {}
  ~relay() {
    stopped_ = true;
    thread_.join();
  }
  [[nodiscard]] std::uint16_t port() const { return listening_.port; }
  void freeze() { frozen_ = true; }

 private:
  void run(std::uint16_t target) {
    std::vector<std::pair<base::fd, base::fd>> pairs;
    while (!stopped_) {
      std::vector<pollfd> waits{
          {.fd = listening_.descriptor.get(), .events = POLLIN, .revents = 0}};
      if (!frozen_) {
        for (const auto& [one, other] : pairs) {
          waits.push_back({.fd = one.get(), .events = POLLIN, .revents = 0});
          waits.push_back({.fd = other.get(), .events = POLLIN, .revents = 0});
        }
      }
      ::poll(waits.data(), waits.size(), 10);
      if (waits[0].revents != 0 && !frozen_) {
        base::fd near(::accept(listening_.descriptor.get(), nullptr, nullptr));
        auto far = base::connect_to("127.0.0.1", target, 1s);
        if (near && far) pairs.emplace_back(std::move(near), std::move(*far));
        continue;
      }
      for (std::size_t at = 1; at < waits.size(); ++at) {
        if (waits[at].revents == 0) continue;
        const auto& [one, other] = pairs[(at - 1) / 2];
        if (!forward(at % 2 == 1 ? one : other, at % 2 == 1 ? other : one)) {
          pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>((at - 1) / 2));
          break;
        }
      }
    }
  }
  static bool forward(const base::fd& from, const base::fd& to) {
    char bytes[4096];
    const ssize_t got = ::recv(from.get(), bytes, sizeof bytes, 0);
    return got > 0 && ::send(to.get(), bytes, static_cast<std::size_t>(got), MSG_NOSIGNAL) == got;
  }

  base::listening_socket listening_;
  std::atomic<bool> stopped_{false};
  std::atomic<bool> frozen_{false};
  std::thread thread_;
};

TEST(ControlPlane, BothEndsNoticeASilentPeer) {
  const live_credentials ours;
  control_plane_options plane = ours.plane();
  plane.heartbeat_interval = 100ms;
  plane.silence_max = 1000ms;
  live_gang gang(1, plane);
  relay wire(gang.runtime->port());
  live_worker rank(0, 1, plane);
  rank.meet(wire.port());
  ASSERT_TRUE(gang.host.serves(1));
  wire.freeze();
  EXPECT_TRUE(gang.host.sees(0, rank_state::absent));
  EXPECT_TRUE(rank.host.says("the connection is lost"));
}

}  // namespace
}  // namespace troupe::actors
