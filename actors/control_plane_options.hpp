// How the control plane authenticates and when it takes a silent peer for gone.
#pragma once

#include <chrono>
#include <string>

namespace troupe::actors {

struct control_plane_options {
  // Paths of PEM files, e.g. base::path_of() of sealed memory. Read again for every connection:
  // they must stay readable while the control plane lives.
  std::string certificate_path;
  std::string key_path;
  std::string authority_path;

  // The promise to notice a lost rank within a second is the supervisors'. These only end
  // connections that nobody else noticed, so they are long: a machine with more ranks than cores
  // may keep a thread from running for a second.
  std::chrono::milliseconds heartbeat_interval{500};
  std::chrono::milliseconds silence_max{10000};

  // To resolve, to connect, to authenticate: each.
  std::chrono::milliseconds dial_patience{5000};
};

}  // namespace troupe::actors
