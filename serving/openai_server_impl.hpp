// The inside of openai_server: what it owns, and one function an endpoint (endpoints.cpp).
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "serving/api_error.hpp"
#include "serving/generation.hpp"
#include "serving/http_thread.hpp"
#include "serving/openai_server.hpp"
#include "serving/request_metrics.hpp"
#include "serving/text_front.hpp"
#include "serving/text_worker.hpp"
#include "serving/token_mailbox.hpp"

namespace troupe::serving {

// A request while it is dispatched.
struct http_exchange {
  net::http_request request;
  std::shared_ptr<net::response> response;
  std::string_view route;  // the route's path: a literal
};

class openai_server::impl : public std::enable_shared_from_this<impl> {
 public:
  impl(openai_server_options options, std::uint64_t secret);

  void handle(http_exchange exchange);
  void attach(std::function<bool(std::function<void()>)> post,
              std::function<net::http_server_counters()> counters);
  void drain() noexcept { draining_.store(true); }
  [[nodiscard]] std::size_t open_requests() const noexcept { return open_->load(); }
  void close();

 private:
  struct route;
  struct open_request {
    std::unique_ptr<generation> work;
    std::shared_ptr<void> ticket;  // counts as open while it lives
  };
  // What becomes of a request on its way through a text thread.
  struct text_job;

  static const route* find_route(std::string_view path);
  [[nodiscard]] bool admits(const route& to, const net::http_request& request) const;
  [[nodiscard]] api_result<void> check(const route& to, const net::http_request& request) const;

  // Endpoints.
  void page(http_exchange& exchange);
  void health(http_exchange& exchange);
  void ready(http_exchange& exchange);
  void metrics(http_exchange& exchange);
  void version(http_exchange& exchange);
  void gang(http_exchange& exchange);
  void models(http_exchange& exchange);
  void model(http_exchange& exchange);
  void chat(http_exchange& exchange) { complete(exchange, endpoint::chat); }
  void completions(http_exchange& exchange) { complete(exchange, endpoint::completion); }
  void tokenize(http_exchange& exchange);
  void detokenize(http_exchange& exchange);

  // A request for tokens on its way to the gang.
  struct arrival {
    std::uint64_t key = 0;
    http_exchange from;  // without its body
    std::chrono::steady_clock::time_point at;
    std::shared_ptr<void> ticket;  // it is open as long as anybody holds this
  };

  void complete(http_exchange& exchange, endpoint at);
  void answer_text(http_exchange& exchange,
                   api_result<std::string> (text_front::*make)(std::string_view) const);
  // By the body's length.
  [[nodiscard]] text_worker& texts_for(std::size_t bytes);
  // False when the queue is full: answered then.
  bool enqueue(text_worker& worker, const http_exchange& exchange, std::size_t bytes,
               std::function<void()> job);
  // admit() of what `make` gives on the worker's thread. False: as enqueue().
  bool admit_later(text_worker& worker, std::size_t bytes, const arrival& of,
                   std::function<api_result<prepared_request>()> make);
  void admit(const arrival& of, api_result<prepared_request> prepared);
  void client_gone(std::uint64_t key);
  void on_mail();

  void send(const http_exchange& to, int status, std::string body,
            std::vector<net::header_field> more = {});
  void send_error(const http_exchange& to, const api_error& error);
  [[nodiscard]] std::shared_ptr<void> open_ticket();
  [[nodiscard]] std::string new_id(std::string_view prefix);
  [[nodiscard]] const std::string& fingerprint();

  openai_server_options options_;
  std::shared_ptr<const text_front> front_;
  std::shared_ptr<http_thread> thread_ = std::make_shared<http_thread>();
  std::shared_ptr<token_mailbox> mailbox_;  // made at the first request: it refers to this
  token_texts tokens_;
  request_metrics counted_;
  std::unordered_map<std::uint64_t, open_request> generations_;
  std::shared_ptr<std::atomic<std::size_t>> open_ =
      std::make_shared<std::atomic<std::size_t>>(std::size_t{0});
  std::function<net::http_server_counters()> http_counters_;
  std::string page_policy_;
  std::string fingerprint_;
  std::string fingerprint_of_;
  std::uint64_t secret_;  // so that ids do not tell how many requests there were
  std::uint64_t last_key_ = 0;
  std::atomic<bool> draining_ = false;
  text_worker short_texts_;
  text_worker long_texts_;
  text_worker new_grammars_;
};

}  // namespace troupe::serving
