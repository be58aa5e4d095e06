// Writes whole lines to a descriptor that others share and may not read: never blocks on a pipe, a
// terminal or a socket. (A regular file is written as it is.)
//
//   base::line_writer out(1);
//   if (!out.write("{\"event\":\"ready\"}\n")) ...  // the reader is behind: later, or not at all
#pragma once

#include <cstddef>
#include <string_view>

#include "base/fd.hpp"

namespace troupe::base {

class line_writer {
 public:
  // A pipe takes this much in one piece or not at all: POSIX's PIPE_BUF on Linux.
  static constexpr std::size_t line_bytes_max = 4096;

  // `descriptor` is borrowed. Where it can be opened again, the new one is non-blocking and the
  // flags of the borrowed one, which other processes share, stay as they are.
  explicit line_writer(int descriptor);

  // Shape: text ends in a newline, at most line_bytes_max bytes.
  // True when written; false when it would have blocked or nobody can read any more.
  [[nodiscard]] bool write(std::string_view text) const noexcept;

 private:
  enum class kind { file, reopened, polled, socket };
  int descriptor_ = -1;
  kind kind_ = kind::file;
  fd own_;
};

}  // namespace troupe::base
