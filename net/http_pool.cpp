#include "net/http_pool.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>

#include <array>
#include <cerrno>
#include <unordered_map>
#include <utility>

#include "base/socket.hpp"
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

constexpr std::size_t piece_bytes_max = 4U << 10;  // each open call holds one
constexpr int interim_answers_max = 8;             // with status 1xx

struct kept_connection {
  explicit kept_connection(asio::io_context& io) : socket(io) {}

  // Nothing to read and not closed by the peer.
  [[nodiscard]] bool idle() {
    char byte = 0;
    return buffer.size() == 0 &&
           ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           (errno == EAGAIN || errno == EWOULDBLOCK);
  }

  tcp::socket socket;
  boost::beast::flat_buffer buffer;
  clock::time_point since;
};

using connection_ptr = std::unique_ptr<kept_connection>;

}  // namespace

class pool_state {
 public:
  pool_state(std::shared_ptr<event_loop> loop, http_pool_options options)
      : options_(options), loop_(std::move(loop)) {}

  [[nodiscard]] const http_pool_options& options() const noexcept { return options_; }
  [[nodiscard]] asio::io_context& io() noexcept { return loop_->io(); }

  // A connection that is kept for the peer, or none. The youngest first: the others may age.
  connection_ptr take(const std::string& authority) {
    const auto found = idle_.find(authority);
    if (found == idle_.end()) return nullptr;
    const clock::time_point oldest = clock::now() - options_.idle_patience;
    std::vector<connection_ptr>& kept = found->second;
    while (!kept.empty()) {
      connection_ptr last = std::move(kept.back());
      kept.pop_back();
      if (last->since > oldest && last->idle()) return last;
    }
    return nullptr;
  }

  void give_back(const std::string& authority, connection_ptr connection) {
    const clock::time_point now = clock::now();
    std::vector<connection_ptr>& kept = idle_[authority];
    std::erase_if(
        kept, [&](const connection_ptr& one) { return now - one->since > options_.idle_patience; });
    if (kept.size() >= options_.idle_connections_max) return;
    connection->since = now;
    kept.push_back(std::move(connection));
  }

  void forget(const std::string& authority) { idle_.erase(authority); }

 private:
  const http_pool_options options_;
  std::shared_ptr<event_loop> loop_;  // destroyed after the sockets that work on it
  std::unordered_map<std::string, std::vector<connection_ptr>> idle_;
};

namespace {

class running_call final : public pool_call, public std::enable_shared_from_this<running_call> {
 public:
  running_call(std::shared_ptr<pool_state> pool, pool_request request, std::string head,
               std::vector<tcp::endpoint> endpoints, pool_calls calls)
      : pool_(std::move(pool)),
        request_(std::move(request)),
        head_(std::move(head)),
        endpoints_(std::move(endpoints)),
        calls_(std::move(calls)),
        deadline_(pool_->io()),
        connecting_(pool_->io()) {}

  void start() {
    if (ended_) return;
    if (request_.patience) {
      deadline_.expires_after(*request_.patience);
      deadline_.async_wait(
          [self = shared_from_this()](error_code error) { self->on_deadline(!error); });
    }
    if (pool_->options().keep_alive) connection_ = pool_->take(request_.peer.authority);
    if (connection_) return send();
    connect(0);
  }

  void cancel() override {
    if (!std::exchange(ended_, true)) release(nullptr);
  }
  void pause() override { paused_ = true; }
  void resume() override {
    if (std::exchange(paused_, false) && std::exchange(waits_, false) && !ended_) read_piece();
  }

 private:
  void connect(std::size_t which) {
    connection_ = std::make_unique<kept_connection>(pool_->io());
    connecting_.expires_after(pool_->options().connect_patience);
    connecting_.async_wait([self = shared_from_this(), which](error_code error) {
      // Closing ends the attempt; its handler goes on.
      if (!error && !self->ended_ && self->connects_ == which) self->close();
    });
    connects_ = which;
    connection_->socket.async_connect(
        endpoints_[which], [self = shared_from_this(), which](error_code error) {
          self->connects_.reset();
          self->connecting_.cancel();
          if (self->ended_) return;
          if (!error) return self->send();
          if (which + 1 < self->endpoints_.size() && !self->timed_out_)
            return self->connect(which + 1);
          self->fail(error, "connecting");
        });
  }

  void expect_head() {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(pool_->options().head_bytes_max));
    parser_->body_limit(boost::none);
    parser_->skip(request_.method == "HEAD");
  }

  void send() {
    expect_head();
    const std::array<asio::const_buffer, 2> bytes = {
        asio::buffer(head_), request_.body ? asio::buffer(*request_.body) : asio::const_buffer()};
    asio::async_write(connection_->socket, bytes,
                      [self = shared_from_this()](error_code, std::size_t) {
                        // An error is the reading's to report: the answer may be there already.
                        if (!self->ended_) self->read_head();
                      });
  }

  void read_head() {
    http::async_read_header(connection_->socket, connection_->buffer, *parser_,
                            [self = shared_from_this()](error_code error, std::size_t) {
                              if (!self->ended_) self->on_head(error);
                            });
  }

  void on_head(error_code error) {
    if (error) return fail(error, "reading the answer's header");
    if (parser_->get().result_int() / 100 == 1) {
      if (++interim_ > interim_answers_max) return fail(http::error::bad_status, "reading answers");
      expect_head();
      return read_head();
    }
    if (calls_.head) calls_.head(head_of(parser_->get().base()));
    if (!ended_) read_piece();
  }

  void read_piece() {
    if (parser_->is_done()) return end(std::nullopt);
    if (paused_) {
      waits_ = true;
      return;
    }
    parser_->get().body().data = piece_.data();
    parser_->get().body().size = piece_.size();
    http::async_read_some(connection_->socket, connection_->buffer, *parser_,
                          [self = shared_from_this()](error_code error, std::size_t) {
                            if (self->ended_) return;
                            if (error == http::error::need_buffer) error = {};
                            self->take_piece();
                            if (self->ended_) return;
                            if (error) return self->fail(error, "reading the answer");
                            self->read_piece();
                          });
  }

  void take_piece() {
    const std::string_view bytes(piece_.data(), piece_.size() - parser_->get().body().size);
    if (!bytes.empty() && calls_.piece) calls_.piece(bytes);
  }

  void on_deadline(bool came) {
    if (!came || ended_) return;
    timed_out_ = true;
    if (waits_) return fail({}, "its reader waited");
    close();
  }

  void close() {
    error_code ignored;
    connection_->socket.close(ignored);
  }

  void fail(error_code error, std::string_view doing) {
    using enum base::error_code;
    const bool too_long =
        error == http::error::header_limit || error == http::error::buffer_overflow;
    const bool early = error == http::error::end_of_stream || error == http::error::partial_message;
    const bool not_http =
        !early && error.category() == make_error_code(http::error::bad_method).category();
    const auto code = timed_out_ ? deadline_exceeded
                      : too_long ? resource_exhausted
                      : not_http ? data_loss
                                 : unavailable;
    const std::string what = timed_out_
                                 ? fmt::format("no end after {} ms", request_.patience->count())
                             : early ? std::string("the connection ended")
                                     : error.message();
    end(base::error{code, fmt::format("{}: {} while {}", request_.peer.authority, what, doing),
                    "net", timed_out_ || !(too_long || not_http)});
  }

  void end(std::optional<base::error> error) {
    if (std::exchange(ended_, true)) return;
    const bool keep = !error && pool_->options().keep_alive && parser_->keep_alive() &&
                      connection_->buffer.size() == 0;
    release(keep ? std::move(connection_) : nullptr);
    if (calls_.end) calls_.end(std::move(error));
  }

  // Lets go of everything; of the caller's functions later, since one of them may be running.
  void release(connection_ptr kept) {
    deadline_.cancel();
    connecting_.cancel();
    if (connection_) close();
    if (kept) pool_->give_back(request_.peer.authority, std::move(kept));
    asio::post(pool_->io(), [self = shared_from_this()] { self->calls_ = {}; });
  }

  const std::shared_ptr<pool_state> pool_;
  const pool_request request_;
  const std::string head_;
  const std::vector<tcp::endpoint> endpoints_;
  pool_calls calls_;
  asio::steady_timer deadline_;
  asio::steady_timer connecting_;
  connection_ptr connection_;
  std::optional<http::response_parser<http::buffer_body>> parser_;
  std::array<char, piece_bytes_max> piece_;
  std::optional<std::size_t> connects_;  // to which address
  int interim_ = 0;
  bool paused_ = false;
  bool waits_ = false;  // paused where the next piece would be read
  bool timed_out_ = false;
  bool ended_ = false;
};

}  // namespace

http_peer peer_at(const std::string& address, std::uint16_t port) {
  return {.addresses = {address}, .port = port, .authority = base::host_and_port(address, port)};
}

base::result<http_peer> look_up(const http_url& url) {
  if (url.tls) {
    return base::fail(base::error_code::unimplemented, "net",
                      "https://" + url.authority + ": many calls at once go over http:// only");
  }
  TROUPE_TRY(addresses, base::resolve(url.host));
  return http_peer{
      .addresses = std::move(addresses),
      .port = static_cast<std::uint16_t>(parse_decimal(url.port).value_or(0)),
      .authority = url.authority,
  };
}

http_pool::http_pool(std::shared_ptr<event_loop> loop, http_pool_options options)
    : state_(std::make_shared<pool_state>(std::move(loop), options)) {}
http_pool::~http_pool() = default;

base::result<std::shared_ptr<pool_call>> http_pool::call(pool_request request, pool_calls calls) {
  std::vector<tcp::endpoint> endpoints;
  for (const std::string& address : request.peer.addresses) {
    error_code error;
    const asio::ip::address numeric = asio::ip::make_address(address, error);
    if (!error) endpoints.emplace_back(numeric, request.peer.port);
  }
  if (endpoints.empty()) {
    return base::fail(base::error_code::invalid_argument, "net",
                      request.peer.authority + " has no numeric address");
  }
  TROUPE_TRY(head,
             format_request_head(
                 {.method = request.method,
                  .target = request.target,
                  .authority = request.peer.authority,
                  .headers = &request.headers,
                  .body_bytes = request.body ? std::optional(request.body->size()) : std::nullopt,
                  .close = !state_->options().keep_alive}));
  auto made = std::make_shared<running_call>(state_, std::move(request), std::move(head),
                                             std::move(endpoints), std::move(calls));
  // Not now: no function of the caller's runs before this returns.
  asio::post(state_->io(), [made] { made->start(); });
  return made;
}

void http_pool::forget(const std::string& authority) { state_->forget(authority); }

}  // namespace troupe::net
