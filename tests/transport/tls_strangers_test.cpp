// A gang that forms while others call: they are turned away and change nothing.
#include "tests/base/certificate_maker.hpp"
#include "tests/transport/group_runner.hpp"
#include "tests/transport/tls_caller.hpp"
#include "tests/transport/tls_runner.hpp"

#include <gtest/gtest.h>

#include <unistd.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

namespace troupe::transport::testing {
namespace {

using base::error_code;
using std::chrono::seconds;
using tls_wire::verdict;

// A gang of two whose rank 0 awaits rank 1. What `meanwhile` does must not keep them apart.
class FormingGang : public ::testing::Test {
 protected:
  void form(const std::function<void()>& meanwhile) {
    within(seconds(60), [&] {
      std::jthread first([&] {
        const auto groups = gang_.plane(0).connect(gang_.addresses(), gang_.patience());
        ASSERT_TRUE(groups) << groups.error().message;
        TROUPE_EXPECT_OK(groups->world->barrier(epoch));
      });
      meanwhile();
      const auto groups = gang_.plane(1).connect(gang_.addresses(), gang_.patience());
      ASSERT_TRUE(groups) << groups.error().message;
      TROUPE_EXPECT_OK(groups->world->barrier(epoch));
    });
  }
  [[nodiscard]] const data_plane_address& door() { return gang_.plane(0).address(); }
  [[nodiscard]] member caller() { return {gang_.credentials(), call_socket(door())}; }
  [[nodiscard]] std::uint64_t stale() { return gang_.plane(0).counters().stale_messages; }

  tls_gang gang_{{.shape = {.tp_size = 2}, .epoch = epoch}};
  const data_plane_seat place_of_1_{.epoch = epoch, .rank = 1, .shape = {.tp_size = 2}};
};

TEST_F(FormingGang, IsNotHeldUpByTheSilentAndTheIncoherent) {
  std::vector<base::fd> silent;
  form([&] {
    for (int i = 0; i < 50; ++i) silent.push_back(call_socket(door()));
    std::mt19937_64 random(7);
    for (int i = 0; i < 50; ++i) {
      std::string garbage(1 + random() % 2000, '\0');
      for (char& letter : garbage) letter = static_cast<char>(random());
      if (i % 2 == 0) garbage[0] = '\x16';  // as a handshake record begins
      const base::fd socket = call_socket(door());
      // The rank may hang up before all is written.
      (void)::send(socket.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL);
    }
    // One that begins well and then says nothing more.
    auto half = std::make_unique<member>(caller());
    EXPECT_TRUE(half->shake());
  });
}

TEST_F(FormingGang, TurnsAwayWhoHasNoCertificateOfIt) {
  base::testing::certificate_maker elsewhere;
  const base::gang_credentials foreign = elsewhere.issue({});
  form([&] {
    EXPECT_FALSE(is_let_in(door(), {}));
    EXPECT_FALSE(is_let_in(door(), {.identity = &foreign}));
    EXPECT_FALSE(
        is_let_in(door(), {.identity = &gang_.credentials(), .version_max = TLS1_2_VERSION}));
    // The stranger's means are good: with the gang's certificate it gets a greeting.
    EXPECT_TRUE(is_let_in(door(), {.identity = &gang_.credentials()}));
  });
}

TEST(TlsStrangers, AnExpiredCertificateIsNone) {
  within(seconds(60), [] {
    base::testing::certificate_maker authority;
    const base::gang_credentials good = authority.issue({});
    const base::gang_credentials old = authority.issue({.starts_in_days = -3, .ends_in_days = -2});
    const world_shape shape{.tp_size = 2};
    auto plane = open_tls({.epoch = epoch, .rank = 0, .shape = shape},
                          {.credentials = &good, .host = "127.0.0.1"})
                     .value();
    auto other = open_tls({.epoch = epoch, .rank = 1, .shape = shape},
                          {.credentials = &good, .host = "127.0.0.1"})
                     .value();
    const std::vector<data_plane_address> addresses = {plane->address(), other->address()};
    std::jthread waiting([&] {
      const auto groups = plane->connect(addresses, seconds(30));
      EXPECT_TRUE(groups) << groups.error().message;
    });
    EXPECT_FALSE(is_let_in(plane->address(), {.identity = &old}));
    EXPECT_TRUE(is_let_in(plane->address(), {.identity = &good}));
    EXPECT_TRUE(other->connect(addresses, seconds(30)));
    // And a rank cannot even start with it.
    const auto refused = open_tls({.epoch = epoch, .rank = 1, .shape = shape},
                                  {.credentials = &old, .host = "127.0.0.1"});
    TROUPE_EXPECT_FAILS(invalid_argument, base::result<void>(tl::unexpected(refused.error())));
  });
}

TEST_F(FormingGang, RefusesMembersThatDoNotBelong) {
  form([&] {
    tls_wire::greeting greeting{.seat = place_of_1_};
    greeting.seat.epoch.number -= 1;
    EXPECT_EQ(caller().greet(tls_wire::encode(greeting)), verdict::other_epoch);
    greeting.seat.epoch = {.incarnation = 1, .number = epoch.number};
    EXPECT_EQ(caller().greet(tls_wire::encode(greeting)), verdict::other_epoch);
    greeting.seat = place_of_1_;
    greeting.seat.rank = 0;
    EXPECT_EQ(caller().greet(tls_wire::encode(greeting)), verdict::wrong_rank);
    greeting.seat = place_of_1_;
    greeting.seat.shape = {.tp_size = 1, .pp_size = 2};
    EXPECT_EQ(caller().greet(tls_wire::encode(greeting)), verdict::other_world);
    greeting.seat = place_of_1_;
    greeting.version = 2;
    EXPECT_EQ(caller().greet(tls_wire::encode(greeting)), verdict::other_version);
    std::vector<std::byte> no_greeting(tls_wire::greeting_bytes, std::byte{'x'});
    EXPECT_EQ(caller().greet(no_greeting), std::nullopt);
  });
  EXPECT_EQ(stale(), 2U);
}

TEST_F(FormingGang, SurvivesAnyGreeting) {
  constexpr std::uint64_t seed = 99;
  std::mt19937_64 random(seed);
  const auto good = tls_wire::encode(tls_wire::greeting{.seat = place_of_1_});
  form([&] {
    for (int round = 0; round < 60; ++round) {
      auto bytes = good;
      // At least the magic is wrong, or the greeting would be rank 1's.
      bytes[random() % 8] ^= static_cast<std::byte>(1 + random() % 255);
      for (std::uint64_t i = random() % 8; i > 0; --i) {
        bytes[random() % bytes.size()] = static_cast<std::byte>(random());
      }
      if (tls_wire::decode_greeting(bytes)) continue;
      const std::size_t told = round % 2 == 0 ? bytes.size() : random() % bytes.size();
      member one = caller();
      ASSERT_TRUE(one.shake()) << "seed " << seed << " round " << round;
      EXPECT_TRUE(one.say(std::span(bytes).first(told)));
      if (told < bytes.size()) continue;  // hangs up in the middle
      std::array<std::byte, tls_wire::greeting_bytes + 1> more{};
      EXPECT_FALSE(one.hear(more)) << "seed " << seed << " round " << round;
    }
  });
}

TEST(TlsStrangers, TheSecondWithARanksNameIsRefused) {
  within(seconds(60), [] {
    tls_gang gang({.shape = {.tp_size = 3}, .epoch = epoch});
    std::jthread first(
        [&] { EXPECT_TRUE(gang.plane(0).connect(gang.addresses(), gang.patience())); });
    const data_plane_seat two{.epoch = epoch, .rank = 2, .shape = {.tp_size = 3}};
    const auto greeting = tls_wire::encode(tls_wire::greeting{.seat = two});
    member real(gang.credentials(), call_socket(gang.plane(0).address()));
    EXPECT_EQ(real.greet(greeting), verdict::welcome);
    member second(gang.credentials(), call_socket(gang.plane(0).address()));
    EXPECT_EQ(second.greet(greeting), verdict::rank_is_here);
    const data_plane_seat one{.epoch = epoch, .rank = 1, .shape = {.tp_size = 3}};
    member last(gang.credentials(), call_socket(gang.plane(0).address()));
    EXPECT_EQ(last.greet(tls_wire::encode(tls_wire::greeting{.seat = one})), verdict::welcome);
  });
}

TEST(TlsStrangers, ASilentCallerIsDroppedAfterItsTime) {
  within(seconds(60), [] {
    tls_gang gang({.shape = {.tp_size = 2}, .epoch = epoch});
    std::jthread first([&] {
      TROUPE_EXPECT_FAILS(
          aborted,
          gang.plane(0).connect(gang.addresses(), seconds(50)).map([](const rank_groups&) {}));
    });
    const base::fd silent = call_socket(gang.plane(0).address());
    const auto start = std::chrono::steady_clock::now();
    pollfd waiting{.fd = silent.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&waiting, 1, 30000), 1);
    EXPECT_GE(std::chrono::steady_clock::now() - start, seconds(4));
    gang.plane(0).abort();
  });
}

TEST(TlsStrangers, AFloodOfCallersGivesWayToTheGang) {
  within(seconds(60), [] {
    tls_gang gang({.shape = {.tp_size = 2}, .epoch = epoch});
    std::jthread first(
        [&] { EXPECT_TRUE(gang.plane(0).connect(gang.addresses(), gang.patience())); });
    std::vector<base::fd> flood;  // more than are kept at once
    for (int i = 0; i < 700; ++i) flood.push_back(call_socket(gang.plane(0).address()));
    EXPECT_TRUE(gang.plane(1).connect(gang.addresses(), gang.patience()));
  });
}

}  // namespace
}  // namespace troupe::transport::testing
