#include "base/socket.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace troupe::base {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

template <class T>
std::string message_of(const result<T>& outcome) {
  return outcome ? "success"
                 : std::string(to_string(outcome.error().code)) + ": " + outcome.error().message;
}

TEST(Socket, ListensOnAFreePortAndConnects) {
  for (const char* host : {"127.0.0.1", "localhost"}) {
    const auto listener = listen_on({.host = host});
    ASSERT_TRUE(listener) << message_of(listener);
    EXPECT_NE(listener->port, 0);
    const auto peer = connect_to(listener->host, listener->port, seconds(10));
    ASSERT_TRUE(peer) << message_of(peer);
    const fd taken(accept(listener->descriptor.get(), nullptr, nullptr));
    ASSERT_TRUE(taken);
    EXPECT_EQ(peer_of(peer->get()), "127.0.0.1:" + std::to_string(listener->port));
    EXPECT_NE(peer_of(taken.get()), peer_of(peer->get()));
  }
}

TEST(Socket, ConnectionsAreNonBlockingWithoutDelayAndClosedOnExec) {
  const auto listener = listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(listener);
  const auto peer = connect_to(listener->host, listener->port, seconds(10));
  ASSERT_TRUE(peer);
  EXPECT_NE(fcntl(peer->get(), F_GETFL) & O_NONBLOCK, 0);
  for (const int descriptor : {peer->get(), listener->descriptor.get()}) {
    EXPECT_NE(fcntl(descriptor, F_GETFD) & FD_CLOEXEC, 0);
  }
  int delay_off = 0;
  socklen_t bytes = sizeof(delay_off);
  ASSERT_EQ(getsockopt(peer->get(), IPPROTO_TCP, TCP_NODELAY, &delay_off, &bytes), 0);
  EXPECT_NE(delay_off, 0);
}

TEST(Socket, TakesTheFirstFreePortOfARange) {
  // Whatever is free now; another program may take a neighbour, then the next one is tried.
  const auto first = listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(first);
  const auto last = static_cast<std::uint16_t>(first->port > 65000 ? 65535 : first->port + 500);
  if (first->port == last) GTEST_SKIP() << "the kernel drew the last port there is";
  const auto second =
      listen_on({.host = "127.0.0.1", .port_first = first->port, .port_last = last});
  ASSERT_TRUE(second) << message_of(second);
  EXPECT_GT(second->port, first->port);
  EXPECT_LE(second->port, last);
}

TEST(Socket, SaysWhichPortOrRangeIsInUse) {
  const auto taken = listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(taken);
  const auto again = listen_on({.host = "127.0.0.1", .port_first = taken->port});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, error_code::unavailable);
  EXPECT_NE(again.error().message.find("127.0.0.1:" + std::to_string(taken->port)),
            std::string::npos)
      << again.error().message;
}

TEST(Socket, RefusesHostsAndRangesThatCannotBe) {
  const std::vector<listen_options> wrong = {
      {.host = ""},
      {.host = std::string(254, 'a')},
      {.host = std::string("127.0.0.1\0x", 11)},
      {.host = "192.0.2.1"},  // documentation only, RFC 5737: no address of this host
      {.host = "127.0.0.1", .port_first = 9, .port_last = 8},
  };
  for (const listen_options& options : wrong) {
    const auto outcome = listen_on(options);
    ASSERT_FALSE(outcome) << options.host;
    EXPECT_EQ(outcome.error().code, error_code::invalid_argument) << message_of(outcome);
  }
}

TEST(Socket, ConnectWantsNumericHosts) {
  for (const char* host : {"localhost", "", "127.0.0.1.5", "1.2.3.4 ", "fe80::1%nosuch"}) {
    const auto outcome = connect_to(host, 9, milliseconds(10));
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, error_code::invalid_argument) << message_of(outcome);
    EXPECT_FALSE(local_address_towards(host));
  }
}

TEST(Socket, RefusedConnectionIsUnavailableAtOnce) {
  std::uint16_t port = 0;
  {
    const auto listener = listen_on({.host = "127.0.0.1"});
    ASSERT_TRUE(listener);
    port = listener->port;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto outcome = connect_to("127.0.0.1", port, seconds(60));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, error_code::unavailable);
  EXPECT_TRUE(outcome.error().retryable);
  EXPECT_NE(outcome.error().message.find(std::to_string(port)), std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(30));
}

TEST(Socket, ConnectGivesUpAtItsDeadline) {
  // A listener whose queue is full answers no further connection.
  auto listener = listen_on({.host = "127.0.0.1", .backlog = 0});
  ASSERT_TRUE(listener);
  std::vector<fd> queued;
  result<fd> last = connect_to(listener->host, listener->port, seconds(10));
  for (int i = 0; i < 8 && last; ++i) {
    queued.push_back(std::move(*last));
    last = connect_to(listener->host, listener->port, milliseconds(50));
  }
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code, error_code::deadline_exceeded) << message_of(last);
  EXPECT_NE(last.error().message.find("50 ms"), std::string::npos);
}

TEST(Socket, ResolvesNamesAndSaysWhichIsUnknown) {
  const auto found = resolve("localhost");
  ASSERT_TRUE(found) << message_of(found);
  EXPECT_NE(std::find(found->begin(), found->end(), "127.0.0.1"), found->end());
  EXPECT_EQ(resolve("127.0.0.1").value(), std::vector<std::string>{"127.0.0.1"});
  // RFC 6761: no resolver may know it. Without a network the resolver itself is out of reach.
  const auto unknown = resolve("nobody.invalid");
  ASSERT_FALSE(unknown);
  EXPECT_TRUE(unknown.error().code == error_code::not_found ||
              unknown.error().code == error_code::unavailable)
      << message_of(unknown);
  EXPECT_TRUE(unknown.error().retryable);
  EXPECT_NE(unknown.error().message.find("nobody.invalid"), std::string::npos);
}

TEST(Socket, TellsTheAddressTowardsAPeer) {
  EXPECT_EQ(local_address_towards("127.0.0.1").value(), "127.0.0.1");
}

}  // namespace
}  // namespace troupe::base
