// troupe run -f FILE: a LeaderWorkerSet on this machine, without Kubernetes.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "base/signals.hpp"
#include "cli/bounded_file.hpp"
#include "cli/commands.hpp"
#include "cli/event_line.hpp"
#include "cli/http_listener.hpp"
#include "cli/yaml_config.hpp"
#include "lws/container_process.hpp"
#include "lws/local_run.hpp"
#include "router/router.hpp"
#include "serving/openai_server.hpp"

namespace troupe::cli {
namespace {

constexpr std::size_t manifest_bytes_max = std::size_t{4} << 20;

struct run_flags {
  std::string file;
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::string log_dir;
};

base::result<lws::workload> read_file(const std::string& file) {
  TROUPE_TRY(text, read_bounded_file("--file", file, manifest_bytes_max));
  auto read = lws::read_workload(text);
  if (!read) read.error().message.insert(0, file + ": ");
  return read;
}

void tell_notes(const lws::workload& workload) {
  for (const std::string& note : workload.not_honoured) {
    fmt::print(stderr, "troupe: means nothing on one machine: {}\n", note);
  }
}

// A folder of this run, with the logs; removed at the end unless it was asked for.
class run_folder {
 public:
  static base::result<run_folder> make(const std::string& wanted) {
    std::error_code problem;
    if (!wanted.empty()) {
      std::filesystem::create_directories(wanted, problem);
      if (::chmod(wanted.c_str(), S_IRWXU) == 0) {
        return run_folder(std::filesystem::absolute(wanted).string(), false);
      }
    } else {
      std::string name = (std::filesystem::temp_directory_path() / "troupe-run-XXXXXX").string();
      if (::mkdtemp(name.data()) != nullptr) return run_folder(name, true);
    }
    return base::fail(base::error_code::failed_precondition, "cli",
                      "cannot make the folder for logs: give --log-dir");
  }
  run_folder(run_folder&& other) noexcept
      : path_(std::move(other.path_)), removed_(std::exchange(other.removed_, false)) {}
  run_folder& operator=(run_folder&&) = delete;
  ~run_folder() {
    std::error_code ignored;
    if (removed_) std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  run_folder(std::string path, bool removed) : path_(std::move(path)), removed_(removed) {}
  std::string path_;
  bool removed_;
};

// Containers find this program first.
std::string path_variable() {
  std::error_code problem;
  const auto own = std::filesystem::read_symlink("/proc/self/exe", problem).parent_path();
  const char* const path = std::getenv("PATH");
  return own.string() + ":" + (path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
}

// Addresses of loopback, so that several runs do not meet: 127.64.0.x to 127.127.255.x.
std::string own_network() {
  const auto id = static_cast<unsigned>(::getpid());
  return fmt::format("127.{}.{}.", 64 + (id >> 8U) % 64, id % 256);
}

// The run and the router before its leaders, on one loop.
class local_service {
 public:
  local_service(lws::workload workload, const run_flags& flags, const run_folder& folder,
                const base::logger& log)
      : flags_(flags), http_port_(workload.http_port), log_(log) {
    const auto& readiness = workload.leader.containers.front().readiness;
    if (readiness && readiness->command.empty()) ready_path_ = readiness->path;
    run_ = std::make_unique<lws::local_run>(
        std::move(workload),
        lws::local_run_options{.folder = folder.path(),
                               .path_variable = path_variable(),
                               .network = own_network(),
                               .loop = loop_,
                               .told = [](const lws::local_pod& pod, const std::string& what) {
                                 print_event({{"event", "pod"},
                                              {"pod", pod.who().name},
                                              {"address", pod.who().address},
                                              {"revision", pod.of().revision},
                                              {"what", what}});
                               }});
  }
  local_service(const local_service&) = delete;
  local_service& operator=(const local_service&) = delete;
  ~local_service() {
    if (server_) server_->stop(std::chrono::milliseconds(0));
    run_.reset();
    router_.reset();
  }

  base::result<void> open() {
    if (http_port_ == 0) {
      log_.warning("no port named http and no Service of the leaders: no address is opened");
      return {};
    }
    router::router_options options;
    options.loop = loop_;
    options.log = &log_;
    options.probes.path = ready_path_;
    options.version = TROUPE_VERSION;
    TROUPE_TRY(policy, router::make_policy("affinity", {}));
    options.policy = std::move(policy);
    TROUPE_TRY(opened, listen_http(flags_.host, flags_.port, false));
    TROUPE_TRY(router, router::http_router::make(std::move(options)));
    router_ = std::move(router);
    net::http_server_options http{.listening = opened.socket.get(), .handler = {}, .loop = loop_};
    http.handler = [this](net::http_request request, std::shared_ptr<net::response> response) {
      router_->handle(std::move(request), std::move(response));
    };
    http.error_body = serving::openai_server::error_body;
    http.wall_clock = [] { return std::time_t{unix_time().count()}; };
    url_ = opened.url;
    http_ = std::move(http);
    socket_ = std::move(opened.socket);
    return {};
  }

  // Turns the loop until everything has ended.
  base::result<void> serve(base::signal_source& signals) {
    signals_ = &signals;
    if (!router_) {
      loop_->at(std::chrono::steady_clock::now(), [this] { tick(); });
      loop_->run();
      return {};
    }
    std::promise<void> ended;
    ended_ = &ended;
    TROUPE_TRY(server, net::http_server::start(std::move(http_)));
    server_ = std::move(server);
    router_->start(*server_);
    print_event({{"event", "listening"}, {"url", url_}});
    (void)server_->post([this] { tick(); });
    ended.get_future().wait();
    return {};
  }

 private:
  void tick() {
    constexpr std::chrono::milliseconds interval{50};
    while (const auto number = signals_->next()) on_signal(*number);
    run_->tick();
    if (router_) route();
    if (std::exchange(ready_, run_->ready()) != run_->ready()) {
      print_event({{"event", ready_ ? "ready" : "not ready"}});
    }
    if (!run_->ended()) {
      loop_->at(std::chrono::steady_clock::now() + interval, [this] { tick(); });
    } else if (ended_ != nullptr) {
      ended_->set_value();
    }
  }

  void on_signal(int number) {
    if (number == SIGCHLD) return;  // the tick looks at them
    if (number != SIGHUP) {
      if (std::exchange(stopping_, true)) return run_->kill_all();
      if (router_) router_->drain();
      return run_->stop();
    }
    auto next = read_file(flags_.file);
    if (!next) return log_.error("the file is not taken: " + next.error().message);
    tell_notes(*next);
    log_.info(fmt::format("takes the file again: {} groups of revision {}", next->replicas,
                          next->revision));
    run_->update(*std::move(next));
  }

  void route() {
    std::vector<router::gang_place> places;
    for (const lws::local_pod* pod : run_->pods()) {
      if (pod->who().index != 0) continue;
      places.push_back(
          {.name = pod->who().name,
           .peer = net::peer_at(pod->who().address, static_cast<std::uint16_t>(http_port_)),
           .terminating = pod->stopping()});
    }
    router_->set_gangs(std::move(places));
  }

  const run_flags& flags_;
  const int http_port_;
  const base::logger& log_;
  std::string ready_path_ = "/ready";
  std::shared_ptr<net::event_loop> loop_ = std::make_shared<net::event_loop>();
  std::unique_ptr<lws::local_run> run_;
  std::unique_ptr<router::http_router> router_;
  net::http_server_options http_;
  base::fd socket_;
  std::string url_;
  std::unique_ptr<net::http_server> server_;
  base::signal_source* signals_ = nullptr;
  std::promise<void>* ended_ = nullptr;
  bool ready_ = false;
  bool stopping_ = false;
};

base::result<void> run_file(const run_flags& flags) {
  TROUPE_TRY(workload, read_file(flags.file));
  TROUPE_TRY(log, base::logger::make({.role = "run"}));
  TROUPE_TRY(folder, run_folder::make(flags.log_dir));
  tell_notes(workload);
  base::ignore_broken_pipes();
  TROUPE_TRY(signals, base::signal_source::take({SIGTERM, SIGINT, SIGHUP, SIGCHLD}));
  local_service service(std::move(workload), flags, folder, log);
  TROUPE_TRY_VOID(service.open());
  return service.serve(signals);
}

exit_code become(const std::string& file) {
  const auto text = read_bounded_file("container", file, manifest_bytes_max);
  if (!text) return report(text.error(), exit_code::usage);
  const auto start = lws::parse_container(*text);
  if (!start) return report(start.error(), exit_code::usage);
  return report(lws::become_container(*start), exit_code::failed);
}

}  // namespace

command add_run(CLI::App& program) {
  auto flags = std::make_shared<run_flags>();
  CLI::App* parser =
      program.add_subcommand("run", "Run a LeaderWorkerSet on this machine, without Kubernetes");
  parser->add_option("-f,--file", flags->file, "manifest; read again on SIGHUP")
      ->required()
      ->type_name("FILE");
  parser->add_option("--host", flags->host, "address of HTTP")->capture_default_str();
  parser->add_option("--port", flags->port, "of HTTP, before all leaders; 0 picks a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  parser->add_option("--log-dir", flags->log_dir, "stays [a folder that goes at the end]")
      ->type_name("DIR");
  add_sources(*parser);
  return {parser, [flags] {
            const auto done = run_file(*flags);
            return done ? exit_code::fine : report(done.error(), exit_code_of(done.error().code));
          }};
}

// What a container of a run begins as; not for people.
command add_container(CLI::App& program) {
  auto file = std::make_shared<std::string>();
  CLI::App* parser = program.add_subcommand("container", "")->group("");
  parser->add_option("FILE", *file)->required();
  add_sources(*parser);
  return {parser, [file] { return become(*file); }};
}

}  // namespace troupe::cli
