#include "lws/local_run.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "base/socket.hpp"
#include "lws/local_environment.hpp"

namespace troupe::lws {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using std::chrono::steady_clock;

base::result<void> write_file(const fs::path& path, const std::string& text) {
  std::error_code problem;
  fs::create_directories(path.parent_path(), problem);
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (out) return {};
  return base::fail(base::error_code::failed_precondition, "lws", "cannot write " + path.string());
}

int port_of(const container_spec& container, const std::string& name) {
  const auto found = container.ports.find(name);
  if (found != container.ports.end()) return found->second;
  return name.empty() || name.find_first_not_of("0123456789") != std::string::npos
             ? 0
             : std::stoi(name.substr(0, 5));
}

}  // namespace

local_run::local_run(workload first, local_run_options options)
    : options_(std::move(options)),
      pool_(options_.loop, {.keep_alive = false}),
      groups_(std::move(first),
              {.address_of = [this](const std::string& pod) { return address_of(pod); },
               .back_off = options_.back_off},
              *this) {
  write_hosts();
}

local_run::~local_run() { kill_all(); }

void local_run::kill_all() {
  for (const child& one : children_) ::kill(-one.process.id, SIGKILL);
}

// Of a pod's name, the same as long as this runs.
std::string local_run::address_of(const std::string& pod) {
  const auto [found, added] = addresses_.try_emplace(pod);
  if (added) found->second = fmt::format("{}{}", options_.network, addresses_.size());
  return found->second;
}

void local_run::write_hosts() {
  static_cast<void>(
      write_file(options_.folder + "/hosts", hosts_file(groups_.wanted(), groups_.identities())));
}

void local_run::tick() {
  const time_point now = steady_clock::now();
  look_at_children(now);
  look_at_connections(now);
  groups_.tick(now);
  // A pod that is gone took its probes and folders with it.
  std::erase_if(volumes_made_, [this](std::uint64_t pod) { return find(pod) == nullptr; });
}

void local_run::update(workload next) {
  groups_.update(std::move(next));
  write_hosts();
}

void local_run::stop() { groups_.stop(steady_clock::now()); }

local_pod* local_run::find(std::uint64_t pod) const {
  for (local_pod* const one : groups_.pods()) {
    if (one->who().number == pod) return one;
  }
  return nullptr;
}

// --- containers ---------------------------------------------------------------------------------

base::result<std::vector<bound_file>> local_run::files_of(const local_pod& pod,
                                                          const container_spec& container) {
  const fs::path volumes = fs::path(options_.folder) / pod.who().name / "volumes";
  std::error_code problem;
  if (volumes_made_.insert(pod.who().number).second) {
    fs::remove_all(volumes, problem);  // of the pod before it
    for (const volume_spec& volume : pod.spec().volumes) {
      fs::create_directories(volumes / volume.name, problem);
      for (const auto& [name, text] : volume.files) {
        TROUPE_TRY_VOID(write_file(volumes / volume.name / name, text));
      }
    }
  }
  std::vector<bound_file> files = {
      {.from = options_.folder + "/hosts", .to = "/etc/hosts", .read_only = true}};
  for (const mount_spec& mount : container.mounts) {
    const auto volume = std::ranges::find(pod.spec().volumes, mount.volume, &volume_spec::name);
    fs::path from =
        volume->host_path.empty() ? volumes / volume->name : fs::path(volume->host_path);
    if (!mount.sub_path.empty()) from /= mount.sub_path;
    files.push_back({.from = from.string(), .to = mount.path, .read_only = mount.read_only});
  }
  return files;
}

base::result<base::child_process> local_run::spawn(const local_pod& pod, std::size_t container,
                                                   const std::vector<std::string>& words,
                                                   const std::string& log) {
  const container_spec& of = pod.container(container);
  TROUPE_TRY(environment, container_environment(pod, of, options_.path_variable));
  TROUPE_TRY(files, files_of(pod, of));
  const fs::path folder = fs::path(options_.folder) / pod.who().name;
  const std::string name = fmt::format("{}.{}", of.name, ++started_);
  std::vector<std::string> expanded = expand_words(words, environment);
  container_start start{.root = (folder / ("root-" + name)).string(),
                        .files = std::move(files),
                        .folder = of.folder.empty() ? "/" : of.folder,
                        .words = std::move(expanded),
                        .environment = std::move(environment),
                        .parent = ::getpid()};
  std::error_code problem;
  fs::create_directories(start.root, problem);
  const std::string file = (folder / (name + ".json")).string();
  TROUPE_TRY_VOID(write_file(file, format_container(start)));
  const base::fd out(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!out) {
    return base::fail(base::error_code::failed_precondition, "lws", "cannot write " + log);
  }
  return base::spawn({.program = "/proc/self/exe",
                      .arguments = {"troupe", "container", file},
                      .descriptors = {{.from = out.get(), .as = 1}, {.from = out.get(), .as = 2}},
                      .null_input = true,
                      .own_process_group = true});
}

void local_run::start(local_pod& pod, std::size_t container) {
  const container_spec& of = pod.container(container);
  const std::string log = fmt::format("{}/{}.{}.{}.log", options_.folder, pod.who().name, of.name,
                                      pod.life_of(container) - 1);
  auto begun = spawn(pod, container, of.words, log);
  if (!begun) {
    pod.exited(container, "cannot start: " + begun.error().message, false, steady_clock::now());
    return;
  }
  children_.push_back(
      {.pod = pod.who().number, .container = container, .process = *std::move(begun)});
  tell(pod,
       fmt::format("{} runs as process {}, log {}", of.name, children_.back().process.id, log));
}

void local_run::send_signal(const local_pod& pod, std::size_t container, int number) {
  for (const child& one : children_) {
    if (one.pod != pod.who().number || one.container != container || one.probe) continue;
    if (number == SIGKILL) {
      ::kill(-one.process.id, SIGKILL);
    } else {
      base::send_signal(one.process, number);
    }
  }
}

void local_run::look_at_children(time_point now) {
  for (auto at = children_.begin(); at != children_.end();) {
    const auto change = base::change_of(at->process);
    const bool over = !change || (*change && (*change)->kind != base::child_change::what::stopped);
    if (!over) {
      // A probe that takes too long has failed.
      if (at->probe && now >= at->deadline) ::kill(-at->process.id, SIGKILL);
      ++at;
      continue;
    }
    const child one = std::move(*at);
    at = children_.erase(at);
    ::kill(-one.process.id, SIGKILL);  // what it has left behind
    const bool clean =
        change && (*change)->kind == base::child_change::what::exited && (*change)->number == 0;
    local_pod* const pod = find(one.pod);
    if (pod == nullptr) continue;
    if (one.probe) {
      pod->probed(one.container, *one.probe, one.life, clean, now);
    } else {
      pod->exited(one.container, change ? base::to_string(**change) : "is gone", clean, now);
    }
  }
}

// --- probes -------------------------------------------------------------------------------------

void local_run::probe(local_pod& pod, std::size_t container, probe_kind kind) {
  const container_spec& of = pod.container(container);
  const probe_spec& how = probe_of(of, kind);
  if (how.tcp) {
    probe_tcp(pod, container, kind, how);
  } else if (how.command.empty()) {
    probe_http(pod, container, kind, how);
  } else {
    probe_exec(pod, container, kind, how);
  }
}

void local_run::probe_http(local_pod& pod, std::size_t container, probe_kind kind,
                           const probe_spec& how) {
  const auto port = static_cast<std::uint16_t>(port_of(pod.container(container), how.port));
  const int life = pod.life_of(container);
  const auto status = std::make_shared<int>(0);
  const auto report = [this, number = pod.who().number, container, kind, life,
                       status](bool answered) {
    local_pod* const asked = find(number);
    if (asked == nullptr) return;
    asked->probed(container, kind, life, answered && *status >= 200 && *status < 400,
                  steady_clock::now());
  };
  const auto begun =
      pool_.call({.peer = net::peer_at(pod.who().address, port),
                  .target = how.path,
                  .patience = seconds(how.timeout_s)},
                 {.head = [status](const net::http_reply& head) { *status = head.status; },
                  .end = [report](const std::optional<base::error>& error) { report(!error); }});
  if (!begun) report(false);
}

void local_run::probe_tcp(local_pod& pod, std::size_t container, probe_kind kind,
                          const probe_spec& how) {
  const auto port = static_cast<std::uint16_t>(port_of(pod.container(container), how.port));
  const time_point now = steady_clock::now();
  auto begun = base::begin_connect(pod.who().address, port);
  if (!begun) return pod.probed(container, kind, pod.life_of(container), false, now);
  connections_.push_back({.socket = *std::move(begun),
                          .address = pod.who().address,
                          .port = port,
                          .pod = pod.who().number,
                          .container = container,
                          .kind = kind,
                          .life = pod.life_of(container),
                          .deadline = now + seconds(how.timeout_s)});
}

void local_run::look_at_connections(time_point now) {
  for (auto at = connections_.begin(); at != connections_.end();) {
    pollfd state = {.fd = at->socket.get(), .events = POLLOUT, .revents = 0};
    const bool told = ::poll(&state, 1, 0) > 0;
    if (!told && now < at->deadline) {
      ++at;
      continue;
    }
    const bool good = told && base::outcome_of(at->socket, at->address, at->port).has_value();
    if (local_pod* const pod = find(at->pod)) {
      pod->probed(at->container, at->kind, at->life, good, now);
    }
    at = connections_.erase(at);
  }
}

void local_run::probe_exec(local_pod& pod, std::size_t container, probe_kind kind,
                           const probe_spec& how) {
  auto begun = spawn(pod, container, how.command,
                     fmt::format("{}/{}.probes.log", options_.folder, pod.who().name));
  const time_point now = steady_clock::now();
  if (!begun) return pod.probed(container, kind, pod.life_of(container), false, now);
  children_.push_back({.pod = pod.who().number,
                       .container = container,
                       .process = *std::move(begun),
                       .probe = kind,
                       .life = pod.life_of(container),
                       .deadline = now + seconds(how.timeout_s)});
}

void local_run::tell(const local_pod& pod, const std::string& what) {
  if (options_.told) options_.told(pod, what);
}

}  // namespace troupe::lws
