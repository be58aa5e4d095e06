// `troupe router` before real gangs that are killed, drained and started again under load.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {
namespace {

// The router's process, on a port of its own.
class running_router {
 public:
  explicit running_router(const std::vector<std::string>& gangs) {
    std::vector<std::string> words = {TROUPE_BINARY, "router", "--port", "0"};
    for (const std::string& url : gangs) {
      words.emplace_back("--gang");
      words.push_back(url);
    }
    const int out = ::open((folder_.path() / "out").c_str(), O_WRONLY | O_CREAT, 0600);
    const int err = ::open((folder_.path() / "err").c_str(), O_WRONLY | O_CREAT, 0600);
    auto child = base::spawn({.program = TROUPE_BINARY,
                              .arguments = words,
                              .environment = {},
                              .descriptors = {{.from = out, .as = 1}, {.from = err, .as = 2}},
                              .null_input = true});
    ::close(out);
    ::close(err);
    if (child) child_ = *std::move(child);
  }
  running_router(const running_router&) = delete;
  running_router& operator=(const running_router&) = delete;
  ~running_router() {
    if (child_.id != 0) static_cast<void>(end());
  }

  [[nodiscard]] std::string url() const {
    std::string line;
    static_cast<void>(wait_until([&] {
      std::ifstream lines(folder_.path() / "out");
      return static_cast<bool>(std::getline(lines, line)) && line.ends_with('}');
    }));
    const json event = json::parse(line, nullptr, false);
    return event.is_object() ? event.value("url", "") : "";
  }
  [[nodiscard]] std::string log() const { return cli::test::read_file(folder_.path() / "err"); }
  [[nodiscard]] double metric(const std::string& name) const {
    const auto page = net::http_fetch({.url = url() + "/metrics", .deadline = 5s});
    const std::size_t at = page ? page->body.find("\n" + name) : std::string::npos;
    if (at == std::string::npos) return -1.0;
    return std::stod(page->body.substr(page->body.find(' ', page->body.find('}', at))));
  }
  // Its exit code after SIGTERM.
  int end() {
    ::kill(child_.id, SIGTERM);
    int status = 0;
    while (::waitpid(child_.id, &status, 0) < 0 && errno == EINTR) {
    }
    child_.id = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  const cli::test::temporary_folder folder_;
  base::child_process child_;
};

// Clients that ask one after the other until they are told to stop.
class load {
 public:
  load(std::string url, int clients) : url_(std::move(url)) {
    for (int i = 0; i < clients; ++i) threads_.emplace_back([this, i] { run(i); });
  }
  load(const load&) = delete;
  load& operator=(const load&) = delete;
  ~load() { stop(); }

  void stop() {
    stop_ = true;
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  [[nodiscard]] int completed() const { return completed_; }
  // After stop(): requests that failed without a token, and with one.
  [[nodiscard]] const std::vector<std::string>& lost() const { return lost_; }
  [[nodiscard]] int cut() const { return cut_; }
  // Texts by prompt: the same prompt has one answer, whoever gave it.
  [[nodiscard]] const std::map<int, std::set<std::string>>& texts() const { return texts_; }

 private:
  void run(int client) {
    for (int turn = 0; !stop_; ++turn) {
      const int prompt = (client * 7 + turn) % 5;
      json body = completion_body(20 + prompt * 30);
      body["prompt"] = "A gang of " + std::to_string(prompt) + " ranks is";
      open_stream stream(url_, body);
      stream.join();
      const std::lock_guard lock(mutex_);
      if (stream.done() && !stream.failed()) {
        ++completed_;
        texts_[prompt].insert(stream.text());
      } else if (stream.pieces() == 0) {
        lost_.push_back(stream.error());
      } else {
        ++cut_;
      }
    }
  }

  const std::string url_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::atomic<int> completed_{0};
  int cut_ = 0;
  std::vector<std::string> lost_;
  std::map<int, std::set<std::string>> texts_;
  std::vector<std::thread> threads_;
};

class RoutedGangs : public ::testing::Test {
 protected:
  void SetUp() override {
    a_ = std::make_unique<served_gang>(std::vector<std::string>{"--tensor-parallel-size", "2"});
    b_ = std::make_unique<served_gang>(std::vector<std::string>{});
    ASSERT_TRUE(a_->ready_within()) << a_->log();
    ASSERT_TRUE(b_->ready_within()) << b_->log();
    router_ = std::make_unique<running_router>(std::vector<std::string>{a_->url(), b_->url()});
    ASSERT_TRUE(wait_until([&] { return ready(*a_) && ready(*b_); })) << router_->log();
  }
  [[nodiscard]] bool ready(served_gang& gang) const {
    const std::string name = gang.url().substr(std::string("http://").size());
    return router_->metric("troupe_router_gang_ready{gang=\"" + name + "\"}") == 1.0;
  }
  // More than all clients have open now: what follows was asked for after this.
  static void more(const load& clients, int requests) {
    const int before = clients.completed();
    ASSERT_TRUE(wait_until([&] { return clients.completed() >= before + requests; }));
  }
  static void expect_one_answer_each(const load& clients) {
    for (const auto& [prompt, texts] : clients.texts()) EXPECT_EQ(texts.size(), 1U) << prompt;
  }

  std::unique_ptr<served_gang> a_;
  std::unique_ptr<served_gang> b_;
  std::unique_ptr<running_router> router_;
};

TEST_F(RoutedGangs, AKilledRankLosesNoRequestThatHadNotBegun) {
  load clients(router_->url(), 8);
  more(clients, 20);
  for (int loss = 0; loss < 3; ++loss) {
    ASSERT_TRUE(a_->send_signal(loss % 2, SIGKILL));
    more(clients, 20);
    ASSERT_TRUE(wait_until([&] { return ready(*a_); })) << router_->log();
  }
  more(clients, 20);
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << router_->log();
  EXPECT_EQ(router_->metric("troupe_router_gave_up_total"), 0.0);
  expect_one_answer_each(clients);
}

TEST_F(RoutedGangs, AKilledGangLosesNoRequestThatHadNotBegun) {
  load clients(router_->url(), 8);
  more(clients, 20);
  ASSERT_EQ(::kill(a_->supervisor(), SIGKILL), 0);
  more(clients, 60);
  EXPECT_FALSE(ready(*a_));
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << router_->log();
  expect_one_answer_each(clients);
}

TEST_F(RoutedGangs, AGangThatDrainsLosesNothingAtAll) {
  load clients(router_->url(), 8);
  more(clients, 20);
  ASSERT_EQ(::kill(a_->supervisor(), SIGTERM), 0);
  EXPECT_EQ(a_->wait(), 0) << a_->log();
  more(clients, 40);
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << router_->log();
  EXPECT_EQ(clients.cut(), 0) << router_->log();
  expect_one_answer_each(clients);
  EXPECT_EQ(router_->end(), 0) << router_->log();
}

}  // namespace
}  // namespace troupe::gang_test
