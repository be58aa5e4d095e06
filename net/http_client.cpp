#include "net/http_client.hpp"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "net/http_syntax.hpp"
#include "net/reply_head.hpp"
#include "net/request_head.hpp"

namespace troupe::net {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using clock = std::chrono::steady_clock;
using base::error_code::cancelled;
using base::error_code::data_loss;
using base::error_code::deadline_exceeded;
using base::error_code::not_found;
using base::error_code::resource_exhausted;
using base::error_code::unavailable;

constexpr std::size_t piece_bytes_max = 16U << 10;
// Answers with status 1xx before the real one.
constexpr int interim_answers_max = 8;

template <class... Values>
tl::unexpected<base::error> failed(base::error_code code, bool retryable,
                                   fmt::format_string<Values...> text, Values&&... values) {
  return base::fail(code, "net", fmt::format(text, std::forward<Values>(values)...), retryable);
}

// --- names -------------------------------------------------------------------------------------

// The system's resolver cannot be interrupted, so it works on a thread of its own that may outlive
// the call; what they share outlives both.
struct lookup {
  std::mutex mutex;
  std::condition_variable_any found;
  bool done = false;
  error_code error;
  std::vector<tcp::endpoint> endpoints;
};

void look_up(const std::shared_ptr<lookup>& shared, const std::string& host,
             const std::string& port) {
  asio::io_context io;
  tcp::resolver resolver(io);
  error_code error;
  const auto results = resolver.resolve(host, port, error);
  const std::lock_guard lock(shared->mutex);
  shared->error = error;
  for (const auto& entry : results) shared->endpoints.push_back(entry.endpoint());
  shared->done = true;
  shared->found.notify_all();
}

base::result<std::vector<tcp::endpoint>> resolve(const http_url& url, const http_call& call,
                                                 clock::time_point deadline) {
  error_code error;
  const asio::ip::address numeric = asio::ip::make_address(url.host, error);
  const auto port = static_cast<std::uint16_t>(parse_decimal(url.port).value_or(0));
  if (!error) return std::vector<tcp::endpoint>{{numeric, port}};
  auto shared = std::make_shared<lookup>();
  std::thread([shared, host = url.host, digits = url.port] {
    look_up(shared, host, digits);
  }).detach();
  std::unique_lock lock(shared->mutex);
  if (!shared->found.wait_until(lock, call.stop, deadline, [&] { return shared->done; })) {
    if (call.stop.stop_requested()) return failed(cancelled, false, "the call was stopped");
    return failed(deadline_exceeded, true, "looking up {} took longer than {} ms", url.host,
                  call.deadline.count());
  }
  if (shared->endpoints.empty()) {
    return failed(not_found, true, "no address for {} ({}): check the name", url.host,
                  shared->error.message());
  }
  return shared->endpoints;
}

// --- one connection ----------------------------------------------------------------------------

// What a connection's bytes go through: the socket itself, or TLS over it.
struct plain_stream {
  plain_stream(asio::io_context& io, asio::ssl::context& /*trust*/) : through(io) {}
  tcp::socket& socket() { return through; }
  tcp::socket through;
};

struct tls_stream {
  tls_stream(asio::io_context& io, asio::ssl::context& trust) : through(io, trust) {}
  tcp::socket& socket() { return through.next_layer(); }
  asio::ssl::stream<tcp::socket> through;
};

template <class Stream>
class exchange {
 public:
  exchange(const http_call& call, http_url url, clock::time_point deadline,
           asio::ssl::context& trust)
      : call_(call), url_(std::move(url)), deadline_(deadline), stream_(io_, trust) {}

  // The server is who its certificate says it is, by an authority that is trusted.
  base::result<void> shake_hands() requires std::is_same_v<Stream, tls_stream> {
    error_code error;
    const bool numeric = (static_cast<void>(asio::ip::make_address(url_.host, error)), !error);
    if (!numeric) SSL_set_tlsext_host_name(stream_.through.native_handle(), url_.host.c_str());
    stream_.through.set_verify_callback(asio::ssl::host_name_verification(url_.host));
    error = wait(step_deadline(), [&](auto done) {
      stream_.through.async_handshake(asio::ssl::stream_base::client,
                                      [done](error_code e) { done(e, 0); });
    });
    if (error) return fail_with(error, "shaking hands over TLS");
    return {};
  }

  base::result<void> connect(const std::vector<tcp::endpoint>& endpoints) {
    error_code last;
    std::size_t left = endpoints.size();
    for (const tcp::endpoint& endpoint : endpoints) {
      // A silent address may not use up the time of those behind it.
      const clock::duration share = (deadline_ - clock::now()) / static_cast<int>(left--);
      error_code ignored;
      socket().close(ignored);
      last = wait(clock::now() + share, [&](auto done) {
        socket().async_connect(endpoint, [done](error_code error) { done(error, 0); });
      });
      if (!last) {
        socket().set_option(tcp::no_delay(true), ignored);
        return {};
      }
      if (stopped_) break;
    }
    return fail_with(last, "connecting");
  }

  void send(const std::string& bytes) {
    // An error is the reading's to report: a server may answer and close before it has read all.
    (void)wait(deadline_, [&](auto done) {
      asio::async_write(stream_.through, asio::buffer(bytes),
                        [done](error_code error, std::size_t n) { done(error, n); });
    });
  }

  // Hands out what comes. Errors: as http_fetch.
  base::result<http_reply> receive(const http_stream_calls& calls) {
    for (int i = 0; i <= interim_answers_max; ++i) {
      http::response_parser<http::buffer_body> parser;
      parser.header_limit(static_cast<std::uint32_t>(call_.head_bytes_max));
      parser.body_limit(boost::none);
      parser.skip(call_.method == "HEAD");
      const error_code error = wait(step_deadline(), [&](auto done) {
        http::async_read_header(stream_.through, buffer_, parser,
                                [done](error_code e, std::size_t n) { done(e, n); });
      });
      if (error) return fail_with(error, "reading the answer's header");
      if (parser.get().result_int() / 100 != 1) return receive_body(parser, calls);
    }
    return failed(data_loss, false, "{} sent only interim answers", url_.authority);
  }

 private:
  using response_parser = http::response_parser<http::buffer_body>;

  tcp::socket& socket() { return stream_.socket(); }

  clock::time_point step_deadline() const {
    if (call_.silence_patience.count() == 0) return deadline_;
    return std::min(deadline_, clock::now() + call_.silence_patience);
  }

  // Runs one asynchronous operation to its end, at the latest to `until`.
  template <class Start>
  error_code wait(clock::time_point until, Start start) {
    std::optional<error_code> result;
    start([&result](error_code error, std::size_t) { result = error; });
    timed_out_ = false;
    // The stop reaches this thread through the loop, where it is safe to close the socket.
    const std::stop_callback on_stop(call_.stop, [this] { asio::post(io_, [this] { stop(); }); });
    while (!result) {
      io_.restart();
      if (io_.run_one_until(until) == 0 && !result) {
        timed_out_ = true;
        close();
        until = clock::time_point::max();  // the operation ends now: it was cancelled
      }
    }
    if (timed_out_ || stopped_) return asio::error::operation_aborted;
    return *result;
  }

  void stop() {
    stopped_ = true;
    close();
  }
  void close() {
    error_code ignored;
    socket().close(ignored);
  }

  base::result<http_reply> receive_body(response_parser& parser, const http_stream_calls& calls) {
    http_reply reply = head_of(parser.get().base());
    if (calls.head && !calls.head(reply)) return failed(cancelled, false, "the caller ended it");
    std::array<char, piece_bytes_max> piece;
    while (!parser.is_done()) {
      parser.get().body().data = piece.data();
      parser.get().body().size = piece.size();
      error_code error = wait(step_deadline(), [&](auto done) {
        http::async_read_some(stream_.through, buffer_, parser,
                              [done](error_code e, std::size_t n) { done(e, n); });
      });
      if (error == http::error::need_buffer) error = {};  // the piece is full: there is more
      const std::size_t n = piece.size() - parser.get().body().size;
      if (n > 0 && calls.piece && !calls.piece({piece.data(), n})) {
        return failed(cancelled, false, "the caller ended it");
      }
      if (error) return fail_with(error, "reading the answer's body");
    }
    return reply;
  }

  tl::unexpected<base::error> fail_with(error_code error, std::string_view doing) const {
    if (stopped_) return failed(cancelled, false, "the call was stopped while {}", doing);
    if (timed_out_) {
      return failed(deadline_exceeded, true, "{} was silent for too long while {}", url_.authority,
                    doing);
    }
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      return failed(resource_exhausted, false,
                    "the answer's header from {} is longer than {} bytes", url_.authority,
                    call_.head_bytes_max);
    }
    if (error == http::error::end_of_stream || error == http::error::partial_message) {
      return failed(unavailable, true, "{} ended the connection while {}", url_.authority, doing);
    }
    const bool not_http = error.category() == make_error_code(http::error::bad_method).category();
    return failed(not_http ? data_loss : unavailable, !not_http, "{}: {} while {}", url_.authority,
                  error.message(), doing);
  }

  const http_call& call_;
  const http_url url_;
  const clock::time_point deadline_;
  asio::io_context io_{1};
  Stream stream_;
  boost::beast::flat_buffer buffer_;
  bool timed_out_ = false;
  bool stopped_ = false;
};

base::result<std::string> format_request(const http_call& call, const http_url& url) {
  const bool sized = !call.body.empty() || call.method == "POST" || call.method == "PUT";
  TROUPE_TRY(head, format_request_head(
                       {.method = call.method,
                        .target = url.target,
                        .authority = url.authority,
                        .headers = &call.headers,
                        .body_bytes = sized ? std::optional(call.body.size()) : std::nullopt,
                        .close = true}));
  return head + call.body;
}

base::result<void> set_trust(const http_call& call, asio::ssl::context& trust) {
  error_code error;
  SSL_CTX_set_min_proto_version(trust.native_handle(), TLS1_2_VERSION);
  trust.set_verify_mode(asio::ssl::verify_peer, error);
  if (call.authorities_file.empty()) {
    trust.set_default_verify_paths(error);
  } else {
    trust.load_verify_file(call.authorities_file, error);
  }
  if (!error) return {};
  return failed(not_found, false, "no certificate authorities in {}: {}",
                call.authorities_file.empty() ? "the system's store" : call.authorities_file,
                error.message());
}

base::result<http_reply> perform(const http_call& call, const http_stream_calls& calls) {
  // So far away is never; it also keeps the sum below from overflowing.
  const auto patience = std::min<std::chrono::milliseconds>(call.deadline, std::chrono::hours(24));
  const clock::time_point deadline = clock::now() + patience;
  TROUPE_TRY(url, parse_http_url(call.url));
  TROUPE_TRY(bytes, format_request(call, url));
  TROUPE_TRY(endpoints, resolve(url, call, deadline));
  asio::ssl::context trust(asio::ssl::context::tls_client);
  if (!url.tls) {
    exchange<plain_stream> connection(call, url, deadline, trust);
    TROUPE_TRY_VOID(connection.connect(endpoints));
    connection.send(bytes);
    return connection.receive(calls);
  }
  TROUPE_TRY_VOID(set_trust(call, trust));
  exchange<tls_stream> connection(call, url, deadline, trust);
  TROUPE_TRY_VOID(connection.connect(endpoints));
  TROUPE_TRY_VOID(connection.shake_hands());
  connection.send(bytes);
  return connection.receive(calls);
}

}  // namespace

base::result<http_reply> http_stream(const http_call& call, const http_stream_calls& calls) {
  try {
    return perform(call, calls);
  } catch (const std::exception& error) {  // no descriptor, no thread
    return failed(resource_exhausted, true, "the HTTP client cannot work: {}", error.what());
  }
}

base::result<http_reply> http_fetch(const http_call& call) {
  std::string body;
  bool too_long = false;
  auto reply = http_stream(call, {.piece = [&](std::string_view bytes) {
                             too_long = bytes.size() > call.body_bytes_max - body.size();
                             if (!too_long) body += bytes;
                             return !too_long;
                           }});
  if (too_long) {
    return failed(resource_exhausted, false, "the answer is longer than {} bytes",
                  call.body_bytes_max);
  }
  if (reply) reply->body = std::move(body);
  return reply;
}

}  // namespace troupe::net
