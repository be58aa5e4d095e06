#include "base/line_writer.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace troupe::base {

line_writer::line_writer(int descriptor) : descriptor_(descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return;
  if (S_ISSOCK(status.st_mode)) kind_ = kind::socket;
  if (!S_ISFIFO(status.st_mode) && !S_ISCHR(status.st_mode)) return;
  kind_ = kind::polled;
  // O_NONBLOCK belongs to the open file, which the shell and other processes share; opening it anew
  // gives one of our own. A pipe that another user made cannot be opened: it is polled instead.
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  own_ = fd(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (own_) kind_ = kind::reopened;
}

bool line_writer::write(std::string_view text) const noexcept {
  const int target = kind_ == kind::reopened ? own_.get() : descriptor_;
  if (kind_ == kind::polled) {
    // A pipe is writable when PIPE_BUF bytes fit; another writer may still take them first.
    pollfd ready{target, POLLOUT, 0};
    if (::poll(&ready, 1, 0) <= 0 || (ready.revents & POLLOUT) == 0) return false;
  }
  ssize_t written = 0;
  do {
    written = kind_ == kind::socket
                  ? ::send(target, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                  : ::write(target, text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  return written > 0;
}

}  // namespace troupe::base
