// Two network namespaces joined by a cable, each with one node of a gang: two hosts as far as the
// network goes. Needs root and the `ip` program.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {

class two_hosts {
 public:
  two_hosts() {
    const std::string both = "ip link add " + cable(0) + " type veth peer name " + cable(1);
    made_ = geteuid() == 0 && call("ip -V") && call("ip netns add " + space(0)) &&
            call("ip netns add " + space(1)) && call(both) && plug(0) && plug(1) && plug_in_test();
  }
  two_hosts(const two_hosts&) = delete;
  two_hosts& operator=(const two_hosts&) = delete;
  ~two_hosts() {
    static_cast<void>(call("ip netns del " + space(0)));
    static_cast<void>(call("ip netns del " + space(1)));
    static_cast<void>(call("ip link del " + test_cable(0)));
  }

  // False: not root, or no `ip`: the test is to be skipped.
  [[nodiscard]] bool made() const { return made_; }

  [[nodiscard]] std::string space(int host) const { return name("h", host); }
  [[nodiscard]] std::string address(int host) const {
    return network(0) + std::to_string(host + 1);
  }
  // Host 0 as the test reaches it.
  [[nodiscard]] std::string front_address() const { return network(1) + "1"; }

  // Another address of a host on the same cable.
  [[nodiscard]] std::string add_address(int host) const {
    const std::string made = network(0) + std::to_string(host + 11);
    return in(host, "ip addr add " + made + "/24 dev " + cable(host)) ? made : std::string();
  }

  void cut() const { static_cast<void>(in(0, "ip link set " + cable(0) + " down")); }
  void mend() const { static_cast<void>(in(0, "ip link set " + cable(0) + " up")); }

  // Bytes that left host 0 over the cable.
  [[nodiscard]] double sent_bytes() const {
    return std::strtod(read(0, "cat /sys/class/net/" + cable(0) + "/statistics/tx_bytes").c_str(),
                       nullptr);
  }
  // Bytes that host 0's connections of a port have sent and received.
  [[nodiscard]] double port_bytes(int port) const {
    const std::string text = read(0, "ss -tinH sport = :" + std::to_string(port));
    double sum = 0.0;
    for (const char* word : {"bytes_sent:", "bytes_received:"}) {
      for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
        sum += std::strtod(text.c_str() + at + std::strlen(word), nullptr);
      }
    }
    return sum;
  }

  // The words that run a command on a host.
  [[nodiscard]] std::vector<std::string> prefix(int host) const {
    return {"ip", "netns", "exec", space(host)};
  }

 private:
  static bool call(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
  }
  [[nodiscard]] bool in(int host, const std::string& command) const {
    return call("ip netns exec " + space(host) + " " + command);
  }
  [[nodiscard]] std::string read(int host, const std::string& command) const {
    const std::string whole = "ip netns exec " + space(host) + " " + command;
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(whole.c_str(), "r"), ::pclose);
    std::string text;
    std::array<char, 4096> piece{};
    while (pipe && std::fgets(piece.data(), piece.size(), pipe.get()) != nullptr) {
      text += piece.data();
    }
    return text;
  }

  bool plug(int host) const {
    return call("ip link set " + cable(host) + " netns " + space(host)) &&
           in(host, "ip link set lo up") &&
           in(host, "ip addr add " + address(host) + "/24 dev " + cable(host)) &&
           in(host, "ip link set " + cable(host) + " up");
  }
  // A second cable from the test to host 0, for HTTP alone.
  bool plug_in_test() const {
    return call("ip link add " + test_cable(0) + " type veth peer name " + test_cable(1)) &&
           call("ip link set " + test_cable(1) + " netns " + space(0)) &&
           in(0, "ip addr add " + front_address() + "/24 dev " + test_cable(1)) &&
           in(0, "ip link set " + test_cable(1) + " up") &&
           call("ip addr add " + network(1) + "2/24 dev " + test_cable(0)) &&
           call("ip link set " + test_cable(0) + " up");
  }

  [[nodiscard]] static std::string name(const std::string& kind, int number) {
    return "tg" + std::to_string(getpid()) + kind + std::to_string(number);
  }
  [[nodiscard]] static std::string cable(int end) { return name("c", end); }
  [[nodiscard]] static std::string test_cable(int end) { return name("t", end); }
  // Private addresses that differ between tests that run at once.
  [[nodiscard]] static std::string network(int number) {
    const int process = getpid();
    return "10." + std::to_string(64 + process % 64 + 64 * number) + "." +
           std::to_string(process / 64 % 250) + ".";
  }

  bool made_ = false;
};

// One gang over both hosts; its HTTP is on host 0.
class two_host_gang {
 public:
  // What a node has of its own.
  struct node_setup {
    std::string model = "demo";
    std::vector<std::string> more = {};
    std::string binary = TROUPE_BINARY;
  };
  explicit two_host_gang(const two_hosts& hosts, const std::string& data_plane,
                         const std::string& model = "demo")
      : two_host_gang(hosts, data_plane, {node_setup{.model = model}, node_setup{.model = model}}) {
  }
  two_host_gang(const two_hosts& hosts, const std::string& data_plane,
                const std::array<node_setup, 2>& setups)
      : two_host_gang(hosts, data_plane, no_nodes{}) {
    for (const int node : {0, 1}) start(node, setups[static_cast<std::size_t>(node)]);
  }
  // No node yet.
  static std::unique_ptr<two_host_gang> empty(const two_hosts& hosts,
                                              const std::string& data_plane) {
    return std::unique_ptr<two_host_gang>(new two_host_gang(hosts, data_plane, no_nodes{}));
  }

  void start(int node, const node_setup& setup) {
    const std::array<std::pair<std::string, std::string>, 7> usual = {{
        {"--nnodes", "2"},
        {"--node-rank", std::to_string(node)},
        {"--leader", hosts_.address(0)},
        {"--gang-tls", certificates()},
        {"--data-plane", data_plane_},
        {"--host", hosts_.front_address()},
        {"--tensor-parallel-size", "2"},
    }};
    std::vector<std::string> more;
    for (const auto& [flag, value] : usual) {
      const bool own = std::find(setup.more.begin(), setup.more.end(), flag) != setup.more.end();
      if (!own) more.insert(more.end(), {flag, value});
    }
    more.insert(more.end(), setup.more.begin(), setup.more.end());
    nodes_[static_cast<std::size_t>(node)] =
        std::make_unique<served_gang>(more, setup.model, hosts_.prefix(node), setup.binary);
  }

  [[nodiscard]] served_gang& front() { return *nodes_[0]; }
  [[nodiscard]] served_gang& node(int number) { return *nodes_[static_cast<std::size_t>(number)]; }
  [[nodiscard]] bool said(int number, const std::string& line) {
    return node(number).log().find(line) != std::string::npos;
  }
  [[nodiscard]] std::string logs() { return node(0).log() + "---\n" + node(1).log(); }

 private:
  struct no_nodes {};
  two_host_gang(const two_hosts& hosts, std::string data_plane, no_nodes)
      : hosts_(hosts), data_plane_(std::move(data_plane)) {
    cli::test::run({"certificates", certificates()});
  }
  [[nodiscard]] std::string certificates() const {
    return (folder_.path() / "certificates").string();
  }

  const two_hosts& hosts_;
  const std::string data_plane_;
  const cli::test::temporary_folder folder_;
  std::array<std::unique_ptr<served_gang>, 2> nodes_;
};

}  // namespace troupe::gang_test
