// The beginning of a streamed answer, held back until it holds a token: up to there another gang
// can still give it, since the client has seen nothing.
//
//   switch (opening.feed(bytes)) {
//     case stream_opening::verdict::hold: break;                       // feed more
//     case stream_opening::verdict::pass: write(opening.take()); ...   // from here on all goes
//     through case stream_opening::verdict::retry: ...                         // an error that a
//     retry mends
//   }
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::router {

class stream_opening {
 public:
  static constexpr std::size_t held_bytes_max = std::size_t{64} << 10;

  enum class verdict : std::uint8_t { hold, pass, retry };

  [[nodiscard]] verdict feed(std::string_view bytes);
  [[nodiscard]] std::string take() { return std::move(held_); }
  // The error of `retry`, as the gang wrote it.
  [[nodiscard]] const std::string& error() const noexcept { return error_; }

 private:
  [[nodiscard]] verdict judge(std::string_view event);

  std::string held_;
  std::size_t judged_ = 0;  // bytes of held_
  std::string error_;
};

}  // namespace troupe::router
