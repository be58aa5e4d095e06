// The supervisor's stdout: whole lines in order, without ever waiting for the reader. A reader that
// falls far behind loses the oldest lines.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

#include "base/line_writer.hpp"

namespace troupe::supervisor {

class announcements {
 public:
  static constexpr std::size_t lines_max = 256;

  explicit announcements(int descriptor) : out_(descriptor) {}

  void add(std::string_view json) {
    if (waiting_.size() >= lines_max) waiting_.pop_front();
    waiting_.emplace_back(std::string(json) + '\n');
    flush();
  }
  void flush() {
    while (!waiting_.empty() && out_.write(waiting_.front())) waiting_.pop_front();
  }

 private:
  base::line_writer out_;
  std::deque<std::string> waiting_;
};

}  // namespace troupe::supervisor
