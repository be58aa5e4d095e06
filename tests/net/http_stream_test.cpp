// Streams, clients that leave or do not read, and the end of a server with both.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net/http_server.hpp"
#include "tests/net/http_rig.hpp"

namespace troupe::net {
namespace {

using namespace test;  // NOLINT(google-build-using-namespace): the rig of these tests

const std::string request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

// A server that hands its responses to the test.
struct stream_rig {
  explicit stream_rig(http_limits limits = {})
      : server(
            [this](const http_request&, std::shared_ptr<response> answer) {
              const std::lock_guard lock(mutex);
              answers.push_back(std::move(answer));
            },
            limits) {}

  std::shared_ptr<response> next() {
    std::shared_ptr<response> answer;
    EXPECT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex);
      if (answers.empty()) return false;
      answer = std::move(answers.front());
      answers.erase(answers.begin());
      return true;
    }));
    return answer;
  }
  std::shared_ptr<response> ask(raw_client& client) {
    client.send(request);
    return next();
  }

  std::mutex mutex;
  std::vector<std::shared_ptr<response>> answers;
  rig server;
};

// The payload of a chunked body; "malformed" where it is not complete.
std::string unchunk(std::string_view bytes) {
  std::string out;
  bytes.remove_prefix(std::min(bytes.find("\r\n\r\n") + 4, bytes.size()));
  for (;;) {
    const auto end = bytes.find("\r\n");
    if (end == bytes.npos) return "malformed";
    const auto size = std::stoul(std::string(bytes.substr(0, end)), nullptr, 16);
    bytes.remove_prefix(end + 2);
    if (size == 0) return bytes == "\r\n" ? out : "malformed";
    if (bytes.size() < size + 2) return "malformed";
    out += bytes.substr(0, size);
    bytes.remove_prefix(size + 2);
  }
}

TEST(HttpStream, ArrivesWholeAndInOrderAndTheConnectionLives) {
  stream_rig rig;
  raw_client client(rig.server);
  for (int round = 0; round < 2; ++round) {
    client.received().clear();
    const auto answer = rig.ask(client);
    answer->begin(200, {{"content-type", "text/event-stream"}});
    std::string sent;
    for (int i = 0; i < 1'000; ++i) {
      const std::string piece = "data: " + std::to_string(i) + "\n\n";
      answer->write(piece);
      answer->write("");
      sent += piece;
    }
    answer->finish();
    EXPECT_EQ(unchunk(client.read_until("\r\n0\r\n\r\n")), sent);
    EXPECT_NE(client.received().find("transfer-encoding: chunked"), std::string::npos);
  }
}

TEST(HttpStream, LeavesAtOnceAndNotWhenMoreComes) {
  stream_rig rig;
  raw_client client(rig.server);
  const auto answer = rig.ask(client);
  answer->begin(200, {});
  client.read_until("\r\n\r\n");
  for (int i = 0; i < 20; ++i) {
    const std::string piece = "token " + std::to_string(i);
    answer->write(piece);
    EXPECT_NE(client.read_until(piece).find(piece), std::string::npos);
  }
}

TEST(HttpStream, HasNoChunksForHttp10AndNoBodyForHead) {
  stream_rig rig;
  for (const bool head : {false, true}) {
    raw_client client(rig.server);
    client.send(head ? "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                     : "GET / HTTP/1.0\r\n\r\n");
    const auto answer = rig.next();
    answer->begin(200, {});
    answer->write("hello ");
    answer->write("there");
    answer->finish();
    const std::string& got = client.read_to_end();
    EXPECT_EQ(got.substr(got.find("\r\n\r\n") + 4), head ? "" : "hello there");
    EXPECT_EQ(got.find("chunked") != got.npos, head) << got;
  }
}

TEST(HttpStream, EndsShortWhenCutOrLetGo) {
  stream_rig rig;
  for (const bool cut : {true, false}) {
    raw_client client(rig.server);
    auto answer = rig.ask(client);
    answer->begin(200, {});
    answer->write("half");
    if (cut) answer->cut();
    if (cut) answer->write("after the cut: nothing");
    answer.reset();
    const std::string& got = client.read_to_end();
    EXPECT_TRUE(client.ended());
    EXPECT_NE(got.find("half"), got.npos);
    EXPECT_EQ(got.find("nothing"), got.npos);
    EXPECT_EQ(got.find("0\r\n\r\n"), got.npos);
  }
  raw_client old(rig.server);
  old.send("GET / HTTP/1.0\r\n\r\n");
  const auto answer = rig.next();
  answer->begin(200, {});
  answer->cut();
  old.read_to_end();
  EXPECT_TRUE(old.was_reset()) << "without chunks an orderly end would look like the whole answer";
}

// --- clients that leave ------------------------------------------------------------------------

TEST(HttpStream, TellsThatTheClientHasGoneWhileNothingIsWritten) {
  stream_rig rig;
  for (const bool begun : {false, true}) {
    raw_client client(rig.server);
    const auto answer = rig.ask(client);
    if (begun) answer->begin(200, {});
    if (begun) client.read_until("\r\n\r\n");
    std::promise<std::thread::id> told;
    answer->on_gone([&] { told.set_value(std::this_thread::get_id()); });
    EXPECT_FALSE(answer->gone());
    const auto begin = steady_clock::now();
    client.close();
    const auto where = kept(told);
    EXPECT_LT(steady_clock::now() - begin, milliseconds(500));
    std::promise<std::thread::id> loop;
    rig.server.server->post([&] { loop.set_value(std::this_thread::get_id()); });
    EXPECT_EQ(where, kept(loop));
    EXPECT_TRUE(answer->gone());
    std::promise<void> again;  // registered late: told at once
    answer->on_gone([&] { again.set_value(); });
    kept(again);
    answer->write("to nobody");
    answer->finish();
  }
  EXPECT_TRUE(eventually([&] { return rig.server.server->counters().connections == 0; }));
}

TEST(HttpStream, TellsOfAClientThatLeavesBehindAFullPipeline) {
  stream_rig rig;
  raw_client client(rig.server);
  std::string many;
  while (many.size() < 100'000) many += request;
  client.send(many);
  const auto answer = rig.next();
  std::promise<void> told;
  answer->on_gone([&] { told.set_value(); });
  const auto begin = steady_clock::now();
  client.close();
  kept(told);
  EXPECT_LT(steady_clock::now() - begin, milliseconds(2'000));
}

TEST(HttpStream, DoesNotTellOfAClientThatLeavesAfterTheAnswer) {
  stream_rig rig;
  std::atomic<bool> told = false;
  {
    raw_client client(rig.server);
    const auto answer = rig.ask(client);
    auto held = std::make_shared<int>(1);
    const std::weak_ptr<int> watched = held;
    answer->on_gone([&told, held] { told = true; });
    held.reset();
    answer->send(200, {}, "done");
    EXPECT_TRUE(watched.expired()) << "what the call holds is let go with the answer";
    client.read_until("done");
  }
  EXPECT_TRUE(eventually([&] { return rig.server.server->counters().connections == 0; }));
  EXPECT_FALSE(told);
}

TEST(HttpStream, CutsAReaderThatLetsTooMuchPileUp) {
  stream_rig rig({.write_patience = std::chrono::minutes(5), .unsent_bytes_max = 100'000});
  raw_client client(rig.server);
  const auto answer = rig.ask(client);
  std::promise<void> told;
  answer->on_gone([&] { told.set_value(); });
  answer->begin(200, {});
  const std::string piece(1'000, 'x');
  std::size_t written = 0;
  const auto deadline = steady_clock::now() + patience;
  while (!answer->gone() && steady_clock::now() < deadline) {
    answer->write(piece);
    written += piece.size();
    if (written % 50'000 == 0) {  // the loop may take what the kernel takes
      std::promise<void> turned;
      rig.server.server->post([&] { turned.set_value(); });
      kept(turned);
    }
  }
  kept(told);
  EXPECT_TRUE(answer->gone());
  EXPECT_EQ(rig.server.server->counters().cut_slow, 1U);
  EXPECT_LT(written, 16U << 20) << "more than the kernels hold at both ends";
  client.read_to_end();
  EXPECT_TRUE(client.was_reset());
}

TEST(HttpStream, CutsAReaderThatTakesNothingForTooLong) {
  stream_rig rig({.write_patience = milliseconds(300), .unsent_bytes_max = 64U << 20});
  raw_client client(rig.server);
  const auto answer = rig.ask(client);
  std::promise<void> told;
  answer->begin(200, {});
  answer->on_gone([&] { told.set_value(); });
  answer->write(std::string(32U << 20, 'x'));
  kept(told);
  EXPECT_EQ(rig.server.server->counters().cut_slow, 1U);
}

TEST(HttpStream, HasPatienceWithAReaderThatIsOnlySlow) {
  stream_rig rig({.write_patience = milliseconds(1'000)});
  raw_client client(rig.server);
  auto answer = rig.ask(client);
  const std::string body(24U << 20, 'x');  // one body may be longer than unsent_bytes_max
  answer->send(200, {}, body);
  answer.reset();
  for (std::size_t got = 0; got < body.size() && !client.ended(); got = client.received().size()) {
    const auto turn = steady_clock::now() + milliseconds(20);
    client.read_until([&, got](const std::string& bytes) {
      return bytes.size() > got + (1U << 20) && steady_clock::now() > turn;
    });
  }
  EXPECT_GT(client.received().size(), body.size());
  EXPECT_EQ(rig.server.server->counters().cut_slow, 0U);
}

// --- threads -----------------------------------------------------------------------------------

TEST(HttpStream, TakesCallsFromManyThreadsWhileClientsComeAndGo) {
  stream_rig rig;
  std::atomic<bool> done = false;
  std::atomic<int> gone = 0;
  std::atomic<int> whole = 0;
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&] {
      while (!done) {
        std::shared_ptr<response> answer;
        {
          const std::lock_guard lock(rig.mutex);
          if (!rig.answers.empty()) {
            answer = std::move(rig.answers.back());
            rig.answers.pop_back();
          }
        }
        if (!answer) {
          std::this_thread::yield();
          continue;
        }
        answer->on_gone([&] { ++gone; });
        answer->begin(200, {});
        for (int i = 0; i < 50; ++i) answer->write("token");
        answer->finish();
      }
    });
  }
  std::vector<std::thread> clients;
  for (int t = 0; t < 3; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        raw_client client(rig.server);
        client.send(request);
        if ((i + t) % 3 == 0) continue;  // leaves at once
        if (unchunk(client.read_until("\r\n0\r\n\r\n")).size() == 250) ++whole;
      }
    });
  }
  for (auto& one : clients) one.join();
  done = true;
  for (auto& one : writers) one.join();
  EXPECT_EQ(whole, 200);
  EXPECT_TRUE(eventually([&] { return rig.server.server->counters().connections == 0; }));
}

TEST(HttpStream, HoldsTwoThousandStreamsInLittleMemory) {
  constexpr std::size_t streams = 2'000;
  stream_rig rig;
  std::vector<raw_client> clients;
  std::vector<std::shared_ptr<response>> answers;
  for (std::size_t i = 0; i < streams; ++i) {
    clients.emplace_back(rig.server);
    answers.push_back(rig.ask(clients.back()));
    answers.back()->begin(200, {});
  }
  EXPECT_EQ(rig.server.server->counters().connections, streams);
  for (int token = 0; token < 3; ++token) {
    for (const auto& answer : answers) answer->write("token");
  }
  for (const auto& answer : answers) answer->finish();
  std::size_t whole = 0;
  for (auto& client : clients) {
    whole += unchunk(client.read_until("\r\n0\r\n\r\n")) == "tokentokentoken" ? 1U : 0U;
  }
  EXPECT_EQ(whole, streams);
}

// --- the end -----------------------------------------------------------------------------------

TEST(HttpStream, StopWaitsForOpenAnswersAndTakesNoMore) {
  stream_rig rig;
  raw_client idle(rig.server);
  raw_client streaming(rig.server);
  raw_client asked(rig.server);
  const auto stream = rig.ask(streaming);
  stream->begin(200, {});
  stream->write("begun");
  const auto answer = rig.ask(asked);
  std::thread stopper([&] { rig.server.server->stop(patience); });
  const auto stopping = steady_clock::now();
  EXPECT_EQ(idle.read_to_end(), "");  // ended: the stop has begun
  EXPECT_TRUE(idle.ended());
  EXPECT_LT(steady_clock::now() - stopping, milliseconds(2'000)) << "at once, not by patience";
  stream->write(" and ended");
  stream->finish();
  answer->send(200, {}, "answered");
  EXPECT_EQ(unchunk(streaming.read_to_end()), "begun and ended");
  EXPECT_NE(asked.read_to_end().find("connection: close"), std::string::npos);
  streaming.close();
  asked.close();
  const auto begin = steady_clock::now();
  stopper.join();
  EXPECT_LT(steady_clock::now() - begin, patience / 2);
}

TEST(HttpStream, StopCutsWhatIsStillOpenAfterItsPatience) {
  stream_rig rig;
  raw_client client(rig.server);
  const auto answer = rig.ask(client);
  answer->begin(200, {});
  std::atomic<int> told = 0;
  answer->on_gone([&] { ++told; });
  const auto begin = steady_clock::now();
  rig.server.server->stop(milliseconds(200));
  const auto took = steady_clock::now() - begin;
  EXPECT_GE(took, milliseconds(200));
  EXPECT_LT(took, milliseconds(2'000));
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(answer->gone());
  EXPECT_EQ(client.read_to_end().find("0\r\n\r\n"), std::string::npos);
  answer->write("to nobody");
  answer->on_gone([&] { ++told; });  // no thread of the server's is left: told here
  EXPECT_EQ(told, 2);
}

TEST(HttpStream, ASecondStopShortensTheFirst) {
  stream_rig rig;
  raw_client client(rig.server);
  const auto answer = rig.ask(client);
  std::thread stopper([&] { rig.server.server->stop(std::chrono::minutes(5)); });
  rig.server.server->stop(milliseconds(100));
  stopper.join();
  EXPECT_TRUE(answer->gone());
}

TEST(HttpStream, AResponseMayOutliveItsServer) {
  std::shared_ptr<response> answer;
  {
    stream_rig rig;
    raw_client client(rig.server);
    answer = rig.ask(client);
    answer->begin(200, {});
  }
  answer->write("to nobody");
  EXPECT_TRUE(answer->gone());
}

TEST(HttpStream, CallsOutOfOrderAreTheCallersDefect) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH(
      {
        stream_rig rig;
        raw_client client(rig.server);
        const auto answer = rig.ask(client);
        answer->send(200, {}, "once");
        answer->send(200, {}, "twice");
      },
      "unanswered");
}

}  // namespace
}  // namespace troupe::net
