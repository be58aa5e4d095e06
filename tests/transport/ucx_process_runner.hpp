// Ranks of a UCX gang as processes, as in production: this test program once more, with the rank's
// part as its only test, named in TEST_PART. Started anew and not forked, since UCX does not
// survive a fork.
#pragma once

#include "tests/transport/group_runner.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe::transport::testing {

// The ranks' end of their channel to the test.
inline constexpr int rank_channel = 3;

// One message of the channel, empty when there is none within the time or the other end is gone.
inline std::string channel_receive(int channel, std::chrono::milliseconds patience) {
  pollfd waits{.fd = channel, .events = POLLIN, .revents = 0};
  if (::poll(&waits, 1, static_cast<int>(patience.count())) <= 0) return {};
  std::string message(std::size_t{1} << 17, '\0');
  const auto got = ::recv(channel, message.data(), message.size(), 0);
  message.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return message;
}

inline void channel_send(int channel, std::string_view message) {
  // A rank that was killed no longer reads.
  (void)::send(channel, message.data(), message.size(), MSG_NOSIGNAL);
}

// A rank's process; killed at the latest with this object.
class rank_process {
 public:
  // `prefix`: the command that starts it, e.g. in another namespace. `variables`: NAME=value.
  rank_process(std::string_view part, std::vector<std::string> prefix,
               const std::vector<std::string>& variables) {
    int ends[2] = {};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    channel_ = ends[0];
    std::vector<std::string> words = std::move(prefix);
    std::array<char, 4096> self{};
    EXPECT_GT(::readlink("/proc/self/exe", self.data(), self.size() - 1), 0);
    words.emplace_back(self.data());
    words.emplace_back("--gtest_filter=UcxRank.PlaysThePartItWasStartedFor");
    words.emplace_back("--gtest_brief=1");
    std::vector<std::string> environment = variables;
    environment.push_back(fmt::format("TEST_PART={}", part));
    for (char** one = environ; *one != nullptr; ++one) {
      if (std::string_view(*one).substr(0, 4) != "UCX_") environment.emplace_back(*one);
    }
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], rank_channel);
    EXPECT_EQ(::posix_spawnp(&process_, words[0].c_str(), &actions, nullptr, pointers(words).data(),
                             pointers(environment).data()),
              0);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
  }
  rank_process(const rank_process&) = delete;
  rank_process& operator=(const rank_process&) = delete;
  ~rank_process() {
    if (process_ > 0) {
      kill(SIGKILL);
      wait();
    }
    ::close(channel_);
  }

  void kill(int signal) const { ::kill(process_, signal); }
  [[nodiscard]] int channel() const { return channel_; }
  // Its exit status; 128 + n when signal n has ended it.
  int wait() {
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0) {
    }
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  static std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> all;
    for (std::string& word : words) all.push_back(word.data());
    all.push_back(nullptr);
    return all;
  }

  pid_t process_ = -1;
  int channel_ = -1;
};

// Passes the address of each rank to all of them, as the control plane does: one message with all,
// each with its length before it.
inline bool swap_addresses(const std::vector<std::unique_ptr<rank_process>>& ranks) {
  std::string all;
  for (const auto& rank : ranks) {
    const std::string address = channel_receive(rank->channel(), std::chrono::seconds(30));
    if (address.empty()) return false;
    all += fmt::format("{} {}", address.size(), address);
  }
  for (const auto& rank : ranks) channel_send(rank->channel(), all);
  return true;
}

// The rank's side: opens, swaps addresses, connects.
struct connected_rank {
  std::unique_ptr<data_plane> plane;
  rank_groups groups;
};

inline base::result<connected_rank> connect_rank(data_plane_seat seat) {
  connected_rank made;
  TROUPE_TRY(plane, open_ucx(seat));
  made.plane = std::move(plane);
  const data_plane_address& own = made.plane->address();
  channel_send(rank_channel, {reinterpret_cast<const char*>(own.data()), own.size()});
  std::string all = channel_receive(rank_channel, std::chrono::seconds(30));
  std::vector<data_plane_address> addresses;
  while (!all.empty()) {
    const std::size_t blank = all.find(' ');
    const std::size_t length = std::stoul(all.substr(0, blank));
    addresses.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(blank + 1),
                           all.begin() + static_cast<std::ptrdiff_t>(blank + 1 + length));
    all.erase(0, blank + 1 + length);
  }
  TROUPE_TRY(groups, made.plane->connect(addresses, std::chrono::seconds(30)));
  made.groups = std::move(groups);
  return made;
}

}  // namespace troupe::transport::testing
