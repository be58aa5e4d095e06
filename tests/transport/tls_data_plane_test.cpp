#include "transport/tls_data_plane.hpp"

#include "base/socket.hpp"
#include "tests/transport/group_runner.hpp"
#include "tests/transport/tls_caller.hpp"
#include "tests/transport/tls_runner.hpp"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace troupe::transport::testing {
namespace {

using base::error_code;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

base::result<void> outcome_of(const base::result<rank_groups>& of) {
  return of ? base::result<void>() : base::result<void>(tl::unexpected(of.error()));
}

TEST(TlsDataPlane, GivesEachRankItsGroups) {
  for (const world_shape shape : {world_shape{1, 1}, {2, 2}, {4, 2}, {1, 3}}) {
    within(seconds(60), [&] {
      tls_gang gang({.shape = shape, .epoch = epoch});
      gang.run([&](int rank, rank_groups& mine) {
        EXPECT_EQ(mine.world->rank(), rank);
        EXPECT_EQ(mine.tp->rank(), rank % shape.tp_size);
        EXPECT_EQ(mine.pp->rank(), rank / shape.tp_size);
        // Bit r of a sum says that rank r took part.
        unsigned stage = 0;
        for (int place = 0; place < shape.tp_size; ++place) {
          stage |= 1U << (rank / shape.tp_size * shape.tp_size + place);
        }
        std::vector<float> values = {static_cast<float>(1U << rank)};
        TROUPE_EXPECT_OK(mine.tp->all_reduce_sum(epoch, values));
        EXPECT_EQ(values[0], static_cast<float>(stage));
        // The pipeline: each stage hands on to the next.
        std::vector<std::byte> bytes = pattern(4, mine.tp->rank(), 0, 100000);
        if (mine.pp->rank() > 0) {
          std::fill(bytes.begin(), bytes.end(), std::byte{0});
          TROUPE_EXPECT_OK(mine.pp->receive(epoch, mine.pp->rank() - 1, bytes));
        }
        EXPECT_EQ(bytes, pattern(4, mine.tp->rank(), 0, 100000));
        if (mine.pp->rank() + 1 < mine.pp->size()) {
          TROUPE_EXPECT_OK(mine.pp->send(epoch, mine.pp->rank() + 1, bytes));
        }
        std::vector<std::byte> plan = pattern(5, rank, 0, 3000);
        TROUPE_EXPECT_OK(mine.world->broadcast(epoch, 0, plan));
        EXPECT_EQ(plan, pattern(5, 0, 0, 3000));
      });
    });
  }
}

TEST(TlsDataPlane, FormsWhateverTheOrderOfTheStarts) {
  std::vector<int> order = {0, 1, 2, 3};
  do {
    within(seconds(60), [&] {
      tls_gang gang({.shape = {.tp_size = 4}, .epoch = epoch});
      std::atomic<int> turn{0};
      std::vector<std::jthread> threads;
      for (int rank = 0; rank < 4; ++rank) {
        threads.emplace_back([&, rank] {
          const auto mine = std::find(order.begin(), order.end(), rank) - order.begin();
          while (turn.load() != mine) std::this_thread::yield();
          turn.fetch_add(1);
          const auto groups = gang.plane(rank).connect(gang.addresses(), gang.patience());
          ASSERT_TRUE(groups) << groups.error().message;
          TROUPE_EXPECT_OK(groups->world->barrier(epoch));
        });
      }
    });
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(TlsDataPlane, CountsPayloadAndFraming) {
  within(seconds(60), [] {
    tls_gang gang({.shape = {.tp_size = 2}, .epoch = epoch});
    gang.run([&](int rank, rank_groups& mine) {
      std::vector<std::byte> bytes(100000);
      for (int message = 0; message < 10; ++message) {
        if (rank == 0) TROUPE_EXPECT_OK(mine.tp->send(epoch, 1, bytes));
        if (rank == 1) TROUPE_EXPECT_OK(mine.tp->receive(epoch, 0, bytes));
      }
    });
    EXPECT_EQ(gang.plane(0).counters().bytes_sent, 10U * (100000 + tls_wire::header_bytes));
    EXPECT_EQ(gang.plane(1).counters().bytes_received, 10U * (100000 + tls_wire::header_bytes));
    EXPECT_EQ(gang.plane(1).counters().bytes_sent, 0U);
    EXPECT_EQ(gang.plane(0).counters().stale_messages, 0U);
  });
}

TEST(TlsDataPlane, ManyGangsShareAHostAndARange) {
  const auto free_port = base::listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(free_port);
  const auto first = static_cast<std::uint16_t>(std::min<int>(free_port->port, 64000));
  const auto ours = base::make_gang_credentials().value();
  std::vector<std::unique_ptr<data_plane>> planes;
  std::vector<std::uint16_t> ports;
  for (int i = 0; i < 12; ++i) {
    auto plane = open_tls({.epoch = epoch, .rank = 0, .shape = {}},
                          {.credentials = &ours,
                           .host = "127.0.0.1",
                           .port_first = first,
                           .port_last = static_cast<std::uint16_t>(first + 1000)});
    ASSERT_TRUE(plane) << plane.error().message;
    ports.push_back(tls_wire::decode_endpoint((*plane)->address())->port);
    planes.push_back(std::move(*plane));
  }
  std::sort(ports.begin(), ports.end());
  EXPECT_EQ(std::adjacent_find(ports.begin(), ports.end()), ports.end());
  EXPECT_GE(ports.front(), first);
}

TEST(TlsDataPlane, RefusesAnAddressThatNobodyReaches) {
  const auto ours = base::make_gang_credentials().value();
  for (const char* host : {"0.0.0.0", "::", "192.0.2.1", ""}) {
    const auto plane =
        open_tls({.epoch = epoch, .rank = 0, .shape = {}}, {.credentials = &ours, .host = host});
    ASSERT_FALSE(plane) << host;
    EXPECT_EQ(plane.error().code, error_code::invalid_argument) << plane.error().message;
  }
}

TEST(TlsDataPlane, RefusesMalformedAddressesAndNamesTheRank) {
  tls_gang gang({.shape = {.tp_size = 3}, .epoch = epoch});
  auto addresses = gang.addresses();
  addresses[2].pop_back();
  const auto cut = gang.plane(1).connect(addresses, seconds(30));
  TROUPE_EXPECT_FAILS(invalid_argument, outcome_of(cut));
  EXPECT_NE(cut.error().message.find("rank 2"), std::string::npos) << cut.error().message;
  tls_gang fresh({.shape = {.tp_size = 3}, .epoch = epoch});
  addresses.resize(2);
  TROUPE_EXPECT_FAILS(invalid_argument, outcome_of(fresh.plane(1).connect(addresses, seconds(30))));
  // The bytes are an address, the host in it is none.
  tls_gang last({.shape = {.tp_size = 2}, .epoch = epoch});
  last.addresses()[0] = tls_wire::encode(tls_wire::endpoint{.host = "nowhere", .port = 1});
  TROUPE_EXPECT_FAILS(invalid_argument,
                      outcome_of(last.plane(1).connect(last.addresses(), seconds(30))));
}

TEST(TlsDataPlane, SaysWhoIsMissing) {
  within(seconds(60), [] {
    tls_gang gang({.shape = {.tp_size = 3}, .epoch = epoch});
    gang.close(0);  // its port answers no more; rank 2 never comes
    const auto outcome = gang.plane(1).connect(gang.addresses(), milliseconds(200));
    TROUPE_EXPECT_FAILS(unavailable, outcome_of(outcome));
    EXPECT_TRUE(outcome.error().retryable);
    for (const char* words : {"rank 0 (", "refused", "rank 2 (has not called)", "200 ms"}) {
      EXPECT_NE(outcome.error().message.find(words), std::string::npos) << outcome.error().message;
    }
  });
}

TEST(TlsDataPlane, ARankOfAnotherAuthorityIsUnauthenticated) {
  within(seconds(60), [] {
    tls_gang gang({.shape = {.tp_size = 2}, .epoch = epoch});
    tls_gang other({.shape = {.tp_size = 2}, .epoch = epoch});
    std::jthread answering([&] {
      TROUPE_EXPECT_FAILS(aborted,
                          outcome_of(other.plane(0).connect(other.addresses(), other.patience())));
    });
    const auto outcome = gang.plane(1).connect(other.addresses(), gang.patience());
    TROUPE_EXPECT_FAILS(unauthenticated, outcome_of(outcome));
    EXPECT_NE(outcome.error().message.find("rank 0 at 127.0.0.1"), std::string::npos)
        << outcome.error().message;
    other.plane(0).abort();
  });
}

TEST(TlsDataPlane, AnAddressOfAnotherEpochOrRankOrWorldIsRefusedAtOnce) {
  struct wrong_turn {
    tls_gang_options answering;
    int answers_as;
    error_code code;
    const char* words;
  };
  const base::epoch_id later{.incarnation = epoch.incarnation, .number = epoch.number + 1};
  const std::vector<wrong_turn> turns = {
      {{.shape = {.tp_size = 3}, .epoch = later}, 0, error_code::unavailable, "out of date"},
      {{.shape = {.tp_size = 3}, .epoch = epoch}, 1, error_code::invalid_argument, "rank 1"},
      {{.shape = {.tp_size = 1, .pp_size = 3}, .epoch = epoch},
       0,
       error_code::invalid_argument,
       "pp_size"},
  };
  for (const wrong_turn& turn : turns) {
    within(seconds(60), [&] {
      tls_gang gang({.shape = {.tp_size = 3}, .epoch = epoch});
      const auto answering = open_tls(
          {.epoch = turn.answering.epoch, .rank = turn.answers_as, .shape = turn.answering.shape},
          {.credentials = &gang.credentials(), .host = "127.0.0.1"});
      std::jthread thread([&] { (void)(*answering)->connect(gang.addresses(), seconds(50)); });
      auto addresses = gang.addresses();
      addresses[0] = (*answering)->address();
      const auto outcome = gang.plane(2).connect(addresses, seconds(50));
      const std::uint64_t stale = turn.code == error_code::unavailable ? 1 : 0;
      const auto deadline = steady_clock::now() + seconds(30);
      while ((*answering)->counters().stale_messages < stale && steady_clock::now() < deadline) {
        std::this_thread::yield();
      }
      (*answering)->abort();
      ASSERT_FALSE(outcome);
      EXPECT_EQ(outcome.error().code, turn.code) << outcome.error().message;
      EXPECT_NE(outcome.error().message.find(turn.words), std::string::npos)
          << outcome.error().message;
      EXPECT_EQ(gang.plane(2).counters().stale_messages, stale);
      EXPECT_EQ((*answering)->counters().stale_messages, stale);
    });
  }
}

// Rank 1 is a member driven by hand, seated at rank 0.
struct hand_driven {
  hand_driven() : gang({.shape = {.tp_size = 2}, .epoch = epoch}) {
    std::jthread connecting(
        [this] { groups = gang.plane(0).connect(gang.addresses(), gang.patience()).value(); });
    peer = std::make_unique<member>(gang.credentials(), call_socket(gang.plane(0).address()));
    const data_plane_seat seat{.epoch = epoch, .rank = 1, .shape = {.tp_size = 2}};
    EXPECT_EQ(peer->greet(tls_wire::encode(tls_wire::greeting{.seat = seat})),
              tls_wire::verdict::welcome);
  }
  void say_header(tls_wire::header header) {
    std::array<std::byte, tls_wire::header_bytes> bytes{};
    tls_wire::encode(header, bytes);
    EXPECT_TRUE(peer->say(bytes));
  }

  tls_gang gang;
  rank_groups groups;
  std::unique_ptr<member> peer;
};

// The tag of a send over the tp group.
constexpr message_tag send_tag{.kind = operation::send_receive, .group = 1};

TEST(TlsDataPlane, APeerThatEndsMidMessageIsUnavailable) {
  for (const std::size_t told : {0UL, 10UL, 24UL, 50000UL}) {
    within(seconds(60), [&] {
      hand_driven two;
      std::array<std::byte, tls_wire::header_bytes> header{};
      tls_wire::encode({.epoch_number = epoch.number, .size = 100000, .tag = send_tag}, header);
      std::vector<std::byte> sent(header.begin(), header.end());
      sent.resize(told);
      EXPECT_TRUE(two.peer->say(sent));
      two.peer.reset();
      std::vector<std::byte> bytes(100000);
      const auto outcome = two.groups.tp->receive(epoch, 1, bytes);
      TROUPE_EXPECT_FAILS(unavailable, outcome);
      EXPECT_NE(outcome.error().message.find("rank 1 at 127.0.0.1"), std::string::npos)
          << outcome.error().message;
      TROUPE_EXPECT_FAILS(aborted, two.groups.tp->send(epoch, 1, bytes));
    });
  }
}

TEST(TlsDataPlane, AMessageThatDoesNotFitIsNeverReadIn) {
  tls_wire::header good{.epoch_number = epoch.number, .size = 100, .tag = send_tag};
  std::vector<tls_wire::header> wrong(5, good);
  wrong[0].size = ~0ULL;
  wrong[1].size = 99;
  wrong[2].tag.kind = static_cast<operation>(200);
  wrong[3].tag.group = 2;
  wrong[4].epoch_number = epoch.number - 1;
  for (const tls_wire::header& header : wrong) {
    within(seconds(60), [&] {
      hand_driven two;
      two.say_header(header);
      std::vector<std::byte> bytes(100);
      TROUPE_EXPECT_FAILS(invalid_argument, two.groups.tp->receive(epoch, 1, bytes));
      EXPECT_EQ(two.gang.plane(0).counters().stale_messages,
                header.epoch_number == epoch.number ? 0U : 1U);
    });
  }
  within(seconds(60), [&] {
    hand_driven two;
    two.say_header(good);
    const auto sent = pattern(1, 1, 0, 100);
    EXPECT_TRUE(two.peer->say(sent));
    std::vector<std::byte> bytes(100);
    TROUPE_EXPECT_OK(two.groups.tp->receive(epoch, 1, bytes));
    EXPECT_EQ(bytes, sent);
  });
}

TEST(TlsDataPlane, BytesThatAreNotSealedEndTheConnection) {
  within(seconds(60), [] {
    hand_driven two;
    const std::string forged = "\x17\x03\x03\x00\x20" + std::string(32, 'x');
    ASSERT_EQ(::send(two.peer->descriptor(), forged.data(), forged.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(forged.size()));
    std::vector<std::byte> bytes(100);
    TROUPE_EXPECT_FAILS(unavailable, two.groups.tp->receive(epoch, 1, bytes));
  });
}

TEST(TlsDataPlane, LeavingAfterTheLastCallDisturbsNobody) {
  for (int round = 0; round < 30; ++round) {
    within(seconds(60), [&] {
      tls_gang gang({.shape = {.tp_size = 4}, .epoch = epoch});
      gang.run([&](int, rank_groups& mine) {
        std::vector<float> values(round % 2 == 0 ? 16 : 50000, 1.0F);
        TROUPE_EXPECT_OK(mine.tp->all_reduce_sum(epoch, values));
        TROUPE_EXPECT_OK(mine.world->barrier(epoch));
        mine = {};  // the last group closes the connections
      });
    });
  }
}

// Waits until the kernel says that the thread sleeps.
bool asleep_before(pid_t thread, steady_clock::time_point deadline) {
  while (steady_clock::now() < deadline) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string stat;
    std::getline(file, stat);
    const auto name_end = stat.rfind(')');
    if (name_end != std::string::npos && stat.size() > name_end + 2 && stat[name_end + 2] == 'S') {
      return true;
    }
    std::this_thread::yield();
  }
  return false;
}

using rank_call = std::function<base::result<void>(int, rank_groups&)>;

// Rank 0 aborts while the others sleep in their calls; returns how long the last took to be back.
steady_clock::duration time_abort(int ranks, const rank_call& call, bool from_the_plane) {
  tls_gang gang({.shape = {.tp_size = ranks}, .epoch = epoch});
  std::vector<std::atomic<pid_t>> sleepers(static_cast<std::size_t>(ranks));
  std::atomic<std::int64_t> start{0};
  std::atomic<std::int64_t> last{0};
  const auto now = [] { return steady_clock::now().time_since_epoch().count(); };
  within(seconds(60), [&] {
    gang.run([&](int rank, rank_groups& mine) {
      if (rank != 0) {
        sleepers[static_cast<std::size_t>(rank)] = ::gettid();
        const auto outcome = call(rank, mine);
        const std::int64_t back = now();
        TROUPE_EXPECT_FAILS(unavailable, outcome);
        std::int64_t before = last.load();
        while (before < back && !last.compare_exchange_weak(before, back)) {
        }
        return;
      }
      const auto deadline = steady_clock::now() + seconds(30);
      for (int other = 1; other < ranks; ++other) {
        auto& thread = sleepers[static_cast<std::size_t>(other)];
        while (thread == 0) std::this_thread::yield();
        EXPECT_TRUE(asleep_before(thread, deadline)) << "rank " << other;
      }
      start = now();
      from_the_plane ? gang.plane(0).abort() : mine.tp->abort();
    });
  });
  return steady_clock::duration(last.load() - start.load());
}

TEST(TlsDataPlane, AbortEndsTheWaitsOfAllRanksAtOnce) {
  const std::vector<std::byte> large(32 << 20);  // freed after the clock is read
  const std::vector<std::pair<std::string, rank_call>> calls = {
      {"receive from the aborting rank",
       [](int, rank_groups& mine) {
         std::vector<std::byte> bytes(8);
         return mine.tp->receive(epoch, 0, bytes);
       }},
      {"receive from a third rank that waits too",
       [](int rank, rank_groups& mine) {
         std::vector<std::byte> bytes(8);
         return mine.tp->receive(epoch, rank == 3 ? 1 : rank + 1, bytes);
       }},
      {"send of 32 MiB that nobody takes",
       [&large](int, rank_groups& mine) { return mine.tp->send(epoch, 0, large); }},
      {"barrier", [](int, rank_groups& mine) { return mine.world->barrier(epoch); }},
  };
  for (const auto& [name, call] : calls) {
    // Promised: 1 ms once scheduled. One quick round is proof that no wait sleeps on; a busy
    // machine may keep the threads off the cores in the others.
    const auto deadline = steady_clock::now() + seconds(20);
    auto best = steady_clock::duration::max();
    for (bool from_the_plane = true; best >= milliseconds(10) && steady_clock::now() < deadline;
         from_the_plane = !from_the_plane) {
      best = std::min(best, time_abort(4, call, from_the_plane));
    }
    EXPECT_LT(best, milliseconds(10)) << name;
    RecordProperty(name.substr(0, name.find(' ')), std::to_string(best.count()));
  }
}

TEST(TlsDataPlane, AbortEndsConnect) {
  within(seconds(60), [] {
    auto best = steady_clock::duration::max();
    const auto deadline = steady_clock::now() + seconds(20);
    while (best >= milliseconds(10) && steady_clock::now() < deadline) {
      tls_gang gang({.shape = {.tp_size = 3}, .epoch = epoch});
      std::atomic<pid_t> thread{0};
      steady_clock::time_point back;
      std::jthread connecting([&] {
        thread = ::gettid();
        const auto outcome = gang.plane(1).connect(gang.addresses(), seconds(50));
        back = steady_clock::now();
        TROUPE_EXPECT_FAILS(aborted, outcome_of(outcome));
      });
      while (thread == 0) std::this_thread::yield();
      EXPECT_TRUE(asleep_before(thread, steady_clock::now() + seconds(30)));
      const auto start = steady_clock::now();
      gang.plane(1).abort();
      gang.plane(1).abort();
      connecting.join();
      best = std::min(best, back - start);
    }
    EXPECT_LT(best, milliseconds(10));
  });
  tls_gang early({.shape = {.tp_size = 2}, .epoch = epoch});
  early.plane(1).abort();
  TROUPE_EXPECT_FAILS(aborted, outcome_of(early.plane(1).connect(early.addresses(), seconds(50))));
}

// A rank that gives up while the others still form does not leave them waiting for the third.
TEST(TlsDataPlane, AResetEndsTheConnectOfThoseAlreadyConnected) {
  within(seconds(60), [] {
    tls_gang gang({.shape = {.tp_size = 3}, .epoch = epoch});
    base::result<void> outcome;
    std::jthread connecting(
        [&] { outcome = outcome_of(gang.plane(0).connect(gang.addresses(), seconds(50))); });
    const data_plane_seat one{.epoch = epoch, .rank = 1, .shape = {.tp_size = 3}};
    {
      member peer(gang.credentials(), call_socket(gang.plane(0).address()));
      EXPECT_EQ(peer.greet(tls_wire::encode(tls_wire::greeting{.seat = one})),
                tls_wire::verdict::welcome);
      const linger at_once{.l_onoff = 1, .l_linger = 0};
      ::setsockopt(peer.descriptor(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
    connecting.join();
    TROUPE_EXPECT_FAILS(unavailable, outcome);
    EXPECT_NE(outcome.error().message.find("rank 1 at 127.0.0.1"), std::string::npos)
        << outcome.error().message;
  });
}

// The ranks free their buffers as soon as a call returns.
TEST(TlsDataPlane, AbortInTheMiddleLeavesNobodyUsingFreedMemory) {
  for (int round = 0; round < 10; ++round) {
    within(seconds(60), [&] {
      tls_gang gang({.shape = {.tp_size = 4}, .epoch = epoch});
      std::atomic<int> done{0};
      std::jthread aborter([&] {
        while (done.load() < 1 + round) std::this_thread::yield();
        gang.plane(round % 4).abort();
      });
      gang.run([&](int, rank_groups& mine) {
        for (;;) {
          auto values = std::make_unique<std::vector<float>>(200000, 1.0F);
          if (!mine.tp->all_reduce_sum(epoch, *values)) break;
          done.fetch_add(1);
        }
        done.fetch_add(100);  // all may have ended before the aborter looked
      });
    });
  }
}

}  // namespace
}  // namespace troupe::transport::testing
