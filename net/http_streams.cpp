#include "net/http_streams.hpp"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>

#include <array>
#include <utility>

#include "net/http_client.hpp"
#include "net/http_syntax.hpp"

namespace troupe::net {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;

// What all calls of one server share.
struct target {
  http_streams_options options;
  std::string head;  // of a request, up to the length of its body
  std::string authority;
  tcp::resolver::results_type endpoints;
};

// One call; its own handlers keep it alive.
class stream_call : public std::enable_shared_from_this<stream_call> {
 public:
  stream_call(asio::io_context& io, const target& to, const std::string& body,
              http_streams_calls calls)
      : to_(to), calls_(std::move(calls)), socket_(io), deadline_(io) {
    request_ = fmt::format("{}content-length: {}\r\n\r\n", to.head, body.size()) + body;
    parser_.header_limit(static_cast<std::uint32_t>(to.options.head_bytes_max));
    parser_.body_limit(boost::none);
  }

  void start() {
    deadline_.expires_after(to_.options.patience);
    deadline_.async_wait([self = shared_from_this()](error_code error) {
      if (error || self->ended_) return;
      self->timed_out_ = true;
      self->close();
    });
    asio::async_connect(socket_, to_.endpoints,
                        [self = shared_from_this()](error_code error, const tcp::endpoint&) {
                          if (error) return self->fail(error, "connecting");
                          self->send();
                        });
  }

 private:
  void send() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    asio::async_write(socket_, asio::buffer(request_),
                      [self = shared_from_this()](error_code, std::size_t) {
                        // An error is the reading's to report: the answer may be there already.
                        self->read_head();
                      });
  }

  void read_head() {
    http::async_read_header(socket_, buffer_, parser_,
                            [self = shared_from_this()](error_code error, std::size_t) {
                              if (error) return self->fail(error, "reading the answer's header");
                              self->read_piece();
                            });
  }

  void read_piece() {
    if (parser_.is_done()) return end(std::nullopt);
    parser_.get().body().data = piece_.data();
    parser_.get().body().size = piece_.size();
    http::async_read_some(socket_, buffer_, parser_,
                          [self = shared_from_this()](error_code error, std::size_t) {
                            if (error == http::error::need_buffer) error = {};
                            self->take_piece();
                            if (error) return self->fail(error, "reading the answer");
                            self->read_piece();
                          });
  }

  void take_piece() {
    const std::string_view bytes(piece_.data(), piece_.size() - parser_.get().body().size);
    if (bytes.empty()) return;
    if (parser_.get().result_int() == 200) {
      calls_.piece(bytes);
    } else {
      text_ += bytes.substr(0, to_.options.error_bytes_max - text_.size());
    }
  }

  void fail(error_code error, std::string_view doing) {
    const std::string what =
        timed_out_ ? fmt::format("no end after {} ms while {}", to_.options.patience.count(), doing)
                   : fmt::format("{} while {}", error.message(), doing);
    end(base::error{
        timed_out_ ? base::error_code::deadline_exceeded : base::error_code::unavailable,
        to_.authority + ": " + what, "net", true});
  }

  void end(std::optional<base::error> error) {
    if (std::exchange(ended_, true)) return;
    deadline_.cancel();
    close();
    const int status = parser_.is_header_done() ? static_cast<int>(parser_.get().result_int()) : 0;
    calls_.end({.status = status, .text = std::move(text_), .error = std::move(error)});
  }

  void close() {
    error_code ignored;
    socket_.close(ignored);
  }

  const target& to_;
  const http_streams_calls calls_;
  std::string request_;
  tcp::socket socket_;
  asio::steady_timer deadline_;
  boost::beast::flat_buffer buffer_;
  http::response_parser<http::buffer_body> parser_;
  std::array<char, 4096> piece_;
  std::string text_;
  bool timed_out_ = false;
  bool ended_ = false;
};

base::result<std::string> head_of(const http_streams_options& options, const http_url& url) {
  std::string out = fmt::format("POST {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", url.target,
                                url.authority);
  for (const auto& [name, value] : options.headers) {
    if (!is_token(name) || !is_field_value(value)) {
      return base::fail(base::error_code::invalid_argument, "net",
                        "a header has a character it cannot have");
    }
    out += fmt::format("{}: {}\r\n", name, value);
  }
  return out;
}

}  // namespace

class http_streams::impl {
 public:
  explicit impl(target to) : to_(std::move(to)) {}

  base::result<void> look_up(const http_url& url) {
    tcp::resolver resolver(io_);
    error_code error;
    to_.endpoints = resolver.resolve(url.host, url.port, error);
    if (!error && !to_.endpoints.empty()) return {};
    return base::fail(
        base::error_code::not_found, "net",
        fmt::format("no address for {} ({}): check the name", url.host, error.message()));
  }

  void at(std::chrono::steady_clock::time_point when, std::function<void()> call) {
    auto timer = std::make_shared<asio::steady_timer>(io_, when);
    timer->async_wait([timer, call = std::move(call)](error_code error) {
      if (!error) call();
    });
  }
  void post(const std::string& body, http_streams_calls calls) {
    std::make_shared<stream_call>(io_, to_, body, std::move(calls))->start();
  }
  void run() {
    io_.restart();
    io_.run();
  }

 private:
  target to_;
  asio::io_context io_{1};
};

http_streams::http_streams(std::unique_ptr<impl> made) : impl_(std::move(made)) {}
http_streams::~http_streams() = default;

base::result<std::unique_ptr<http_streams>> http_streams::open(http_streams_options options) {
  TROUPE_TRY(url, parse_http_url(options.url));
  TROUPE_TRY(head, head_of(options, url));
  auto made = std::make_unique<impl>(target{.options = std::move(options),
                                            .head = std::move(head),
                                            .authority = url.authority,
                                            .endpoints = {}});
  TROUPE_TRY_VOID(made->look_up(url));
  return std::unique_ptr<http_streams>(new http_streams(std::move(made)));
}

void http_streams::at(std::chrono::steady_clock::time_point when, std::function<void()> call) {
  impl_->at(when, std::move(call));
}
void http_streams::post(const std::string& body, http_streams_calls calls) {
  impl_->post(body, std::move(calls));
}
void http_streams::run() { impl_->run(); }

}  // namespace troupe::net
