// `troupe run -f` with what `troupe lws manifest` prints: real pods as processes of this machine.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <memory>
#include <regex>

#include "tests/gang/asking_clients.hpp"
#include "tests/gang/running_program.hpp"

namespace troupe::gang_test {
namespace {

// Whether this machine lets this user have a mount namespace.
bool namespaces_allowed() {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(::unshare(::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) == 0 ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

class RunFile : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!namespaces_allowed()) GTEST_SKIP() << "no mount namespaces for this user";
  }

  // The manifest, with the keys and certificates that a first one brought.
  void write_manifest(const std::vector<std::string>& more) {
    std::vector<std::string> words = {
        "lws", "manifest",  "demo",      "--name",          "llm", "--image", "i", "--cpus",
        "1",   "--secrets", "generated", "--drain-timeout", "30"};
    words.insert(words.end(), more.begin(), more.end());
    const cli::test::outcome made = cli::test::run(words);
    ASSERT_EQ(made.code, 0) << made.err;
    std::string text = made.out;
    if (secrets_.empty()) {
      secrets_ = text.substr(0, text.find("kind: NetworkPolicy"));
    } else {
      text = secrets_ + text.substr(text.find("kind: NetworkPolicy"));
    }
    file_ = folder_.write("lws.yaml", text);
    std::smatch key;
    ASSERT_TRUE(std::regex_search(text, key, std::regex("sk-[0-9a-f]+")));
    key_ = key.str();
  }
  void start() {
    run_ = std::make_unique<running_program>(std::vector<std::string>{
        "run", "-f", file_, "--port", "0", "--log-dir", (folder_.path() / "logs").string()});
    ASSERT_TRUE(wait_until([&] { return !run_->events("ready").empty(); })) << run_->log();
  }
  // Processes that `what` was told of, of this pod, the last one last.
  [[nodiscard]] std::vector<pid_t> processes(const std::string& pod) const {
    std::vector<pid_t> found;
    for (const json& event : run_->events("pod")) {
      const std::string what = event["what"];
      std::smatch told;
      if (event["pod"] != pod) continue;
      if (std::regex_search(what, told, std::regex("runs as process ([0-9]+)"))) {
        found.push_back(static_cast<pid_t>(std::stol(told[1].str())));
      }
    }
    return found;
  }

  const cli::test::temporary_folder folder_;
  std::string file_;
  std::string secrets_;
  std::string key_;
  // Last: it may still write to the folder while it ends.
  std::unique_ptr<running_program> run_;
};

TEST_F(RunFile, AnswersWithTheBitsOfGenerateAndLeavesNothingBehind) {
  ASSERT_NO_FATAL_FAILURE(write_manifest({"--nodes", "2"}));
  ASSERT_NO_FATAL_FAILURE(start());
  open_stream stream(run_->url(), completion_body(24), key_);
  stream.join();
  EXPECT_TRUE(stream.done()) << stream.error() << run_->log();
  const cli::test::outcome alone = cli::test::run(
      {"generate", "demo", "--prompt", "A gang is", "--max-tokens", "24", "--ignore-eos"});
  EXPECT_EQ(stream.text() + "\n", alone.out);
  std::vector<pid_t> all = processes("llm-0");
  for (const pid_t one : processes("llm-0-1")) all.push_back(one);
  EXPECT_EQ(all.size(), 2U);
  EXPECT_EQ(run_->end(), 0) << run_->log();
  for (const pid_t one : all) EXPECT_FALSE(is_alive(one));
  EXPECT_TRUE(processes_with({"--node-rank", "1", "--parent", std::to_string(all[1])}).empty());
}

TEST_F(RunFile, StartsAKilledContainerAgainInItsPod) {
  ASSERT_NO_FATAL_FAILURE(write_manifest({"--nodes", "2", "--replicas", "2"}));
  ASSERT_NO_FATAL_FAILURE(start());
  asking_clients clients(run_->url(), 4, key_);
  ASSERT_TRUE(wait_until([&] { return clients.completed() >= 10; }));
  ASSERT_EQ(::kill(processes("llm-0").back(), SIGKILL), 0);
  ASSERT_TRUE(wait_until([&] { return run_->events("ready").size() == 2; })) << run_->log();
  EXPECT_EQ(processes("llm-0").size(), 2U);
  EXPECT_EQ(processes("llm-0-1").size(), 1U) << "the worker keeps its weights";
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << run_->log();
}

TEST_F(RunFile, RecreatesTheGroupWhereTheManifestSaysSo) {
  ASSERT_NO_FATAL_FAILURE(
      write_manifest({"--nodes", "2", "--restart-policy", "RecreateGroupOnPodRestart"}));
  ASSERT_NO_FATAL_FAILURE(start());
  ASSERT_EQ(::kill(processes("llm-0-1").back(), SIGKILL), 0);
  ASSERT_TRUE(wait_until([&] { return run_->events("ready").size() == 2; })) << run_->log();
  EXPECT_GE(processes("llm-0").size(), 2U);
  EXPECT_FALSE(is_alive(processes("llm-0").front()));
}

TEST_F(RunFile, TakesTheFileAgainWithoutLosingARequest) {
  ASSERT_NO_FATAL_FAILURE(write_manifest({"--nodes", "1", "--env", "VERSION=1"}));
  ASSERT_NO_FATAL_FAILURE(start());
  asking_clients clients(run_->url(), 4, key_);
  ASSERT_TRUE(wait_until([&] { return clients.completed() >= 10; }));
  ASSERT_NO_FATAL_FAILURE(write_manifest({"--nodes", "1", "--env", "VERSION=2"}));
  ::kill(run_->id(), SIGHUP);
  ASSERT_TRUE(wait_until([&] { return run_->events("ready").size() == 2; })) << run_->log();
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << run_->log();
  EXPECT_EQ(clients.cut(), 0) << run_->log();
  EXPECT_EQ(processes("llm-1").size(), 1U) << "it came while the first was replaced";
}

}  // namespace
}  // namespace troupe::gang_test
