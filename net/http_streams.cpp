#include "net/http_streams.hpp"

#include <utility>

#include "base/check.hpp"
#include "net/http_client.hpp"
#include "net/http_pool.hpp"
#include "net/request_head.hpp"

namespace troupe::net {

class http_streams::impl {
 public:
  impl(http_streams_options options, http_peer peer, std::string target)
      : options_(std::move(options)), peer_(std::move(peer)), target_(std::move(target)) {}

  void at(std::chrono::steady_clock::time_point when, std::function<void()> call) {
    loop_->at(when, std::move(call));
  }
  void run() { loop_->run(); }

  void post(const std::string& body, http_streams_calls calls) {
    // What is known of an answer until its end.
    struct progress {
      http_streams_calls calls;
      http_stream_end end = {};
    };
    auto state = std::make_shared<progress>(progress{.calls = std::move(calls)});
    const auto on_piece = [state, most = options_.error_bytes_max](std::string_view bytes) {
      if (state->end.status == 200) return state->calls.piece(bytes);
      state->end.text += bytes.substr(0, most - state->end.text.size());
    };
    const auto on_end = [state](std::optional<base::error> error) {
      state->end.error = std::move(error);
      state->calls.end(std::move(state->end));
    };
    const auto begun =
        pool_.call({.peer = peer_,
                    .method = "POST",
                    .target = target_,
                    .headers = options_.headers,
                    .body = std::make_shared<const std::string>(body),
                    .patience = options_.patience},
                   {.head = [state](const http_reply& head) { state->end.status = head.status; },
                    .piece = on_piece,
                    .end = on_end});
    TROUPE_CHECK(begun.has_value());  // open() has looked at all that can be wrong
  }

 private:
  const http_streams_options options_;
  const http_peer peer_;
  const std::string target_;
  std::shared_ptr<event_loop> loop_ = std::make_shared<event_loop>();
  // A load generator measures a connection with each call, and waits long for it.
  http_pool pool_{loop_,
                  {.keep_alive = false,
                   .connect_patience = options_.patience,
                   .head_bytes_max = options_.head_bytes_max}};
};

http_streams::http_streams(std::unique_ptr<impl> made) : impl_(std::move(made)) {}
http_streams::~http_streams() = default;

base::result<std::unique_ptr<http_streams>> http_streams::open(http_streams_options options) {
  TROUPE_TRY(url, parse_http_url(options.url));
  TROUPE_TRY_VOID(format_request_head({.method = "POST",
                                       .target = url.target,
                                       .authority = url.authority,
                                       .headers = &options.headers}));
  TROUPE_TRY(peer, look_up(url));
  auto made = std::make_unique<impl>(std::move(options), std::move(peer), url.target);
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
