// Stop strings in a stream of text: lets through what can no longer belong to one.
//
// A pure function of the text so far, so it can be rebuilt from a sequence's log. Holds back at
// most the longest stop string less one byte. The stop string itself is not let through, as in
// OpenAI's API; text in front of it is.
//
//   stop_matcher stops({"\n\n", "###"});
//   out += stops.push("one\n");   // "one"
//   out += stops.push("\ntwo");   // "", stops.stopped()
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

struct stop_limits {
  static constexpr std::size_t strings_max = 16;
  static constexpr std::size_t string_bytes_max = 1024;
};

class stop_matcher {
 public:
  // Empty strings never match. Range: stop_limits, checked by the caller.
  explicit stop_matcher(std::vector<std::string> stops);

  // Text that is certain now. Empty once stopped.
  [[nodiscard]] std::string push(std::string_view text);
  // What was held back when no stop string came. Empty once stopped.
  [[nodiscard]] std::string finish();
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace troupe::text
