// Reads one HTTP/1.1 request after the other out of the bytes of a connection, strictly: what two
// readers could understand differently is refused, so that no front end and this server disagree
// about where a request ends. No I/O; one thread.
//
// A general parser is not used here because what has to be refused (folded lines, bare line feeds,
// chunk lines, trailers that overwrite fields) can no longer be seen in what it hands out.
//
//   std::size_t used = parser.feed(bytes);  // stops at the end of a request
//   if (parser.refused()) ...               // 4xx or 5xx, then close
//   if (parser.complete()) handle(parser.take());
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "net/http_server.hpp"

namespace troupe::net {

class request_parser {
 public:
  // `limits` outlives the parser.
  explicit request_parser(const http_limits& limits) : limits_(&limits) {}

  // Consumes bytes up to the end of the request or its refusal; says how many.
  std::size_t feed(std::string_view bytes);

  [[nodiscard]] bool complete() const noexcept { return state_ == state::complete; }
  [[nodiscard]] bool refused() const noexcept { return status_ != 0; }
  [[nodiscard]] int status() const noexcept { return status_; }              // of the refusal
  [[nodiscard]] std::string_view what() const noexcept { return what_; }     // one line, no period
  [[nodiscard]] bool head_complete() const noexcept { return head_whole_; }  // the body follows
  // Bytes of the body held so far.
  [[nodiscard]] std::size_t body_bytes() const noexcept { return request_.body.size(); }

  // Valid once the head is complete.
  [[nodiscard]] bool continue_expected() const noexcept { return continue_expected_; }
  [[nodiscard]] bool http_1_0() const noexcept { return http_1_0_; }
  [[nodiscard]] bool close() const noexcept { return close_ || http_1_0_; }
  // Also of a refused request whose request line was read.
  [[nodiscard]] bool head_only() const noexcept { return request_.method == "HEAD"; }

  // The complete request; the parser is ready for the next one.
  [[nodiscard]] http_request take();

 private:
  enum class state : std::uint8_t {
    request_line,
    fields,
    fixed_body,
    chunk_size,
    chunk_data,
    chunk_end,
    trailers,
    complete,
  };

  std::size_t feed_line(std::string_view bytes);
  std::size_t feed_body(std::string_view bytes);
  [[nodiscard]] std::size_t line_bytes_max() const noexcept;
  void check_partial_line();
  void on_line(std::string_view line);
  void on_request_line(std::string_view line);
  void on_version(std::string_view version);
  void on_target(std::string_view target);
  void on_absolute_target(std::string_view target, std::size_t scheme_bytes);
  bool on_field(std::string_view line, bool keep);
  void on_chunk_size(std::string_view line);
  void finish_head();
  void check_single_fields();
  void check_host();
  void check_connection();
  void check_expectation();
  void frame_body();
  void frame_coded_body(std::string_view coding);
  void refuse(int status, std::string_view what) noexcept;
  void reset();

  const http_limits* limits_;
  state state_ = state::request_line;
  std::string line_;            // the part of a line that has come
  std::size_t head_bytes_ = 0;  // of the head and the trailers
  std::size_t field_count_ = 0;
  std::size_t extension_bytes_ = 0;
  std::uint64_t body_left_ = 0;  // of the fixed body or of this chunk
  std::string authority_;        // of an absolute target
  http_request request_;
  int status_ = 0;
  std::string_view what_;
  bool head_whole_ = false;
  bool http_1_0_ = false;
  bool close_ = false;
  bool continue_expected_ = false;
  bool absolute_ = false;
  bool skipped_empty_line_ = false;
};

}  // namespace troupe::net
