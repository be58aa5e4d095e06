#include "serving/openai_server.hpp"

#include <fmt/format.h>

#include <utility>

#include "base/sha256.hpp"
#include "serving/openai_server_impl.hpp"
#include "serving/page.hpp"

namespace troupe::serving {
namespace {

// A bijection of 64 bits (splitmix64's finaliser): ids differ and do not count up.
std::uint64_t scattered(std::uint64_t value) {
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}

base::result<void> check(const openai_server_options& options) {
  const auto bad = [](std::string what) {
    return base::fail(base::error_code::invalid_argument, "serving", std::move(what));
  };
  if (options.model.names.empty()) return bad("a served model needs a name");
  if (!options.seams.wall_clock || !options.seams.clock || !options.seams.draw_seed) {
    return bad("the clocks and the seed are needed");
  }
  if (options.model.max_model_len < 1 || options.model.vocab_size < 1) {
    return bad("max_model_len and vocab_size are at least 1");
  }
  const serving_limits& limits = options.limits;
  if (limits.json_depth_max < 1 || limits.text_queue_max < 1 || limits.choices_max < 1) {
    return bad("a limit of zero serves nobody");
  }
  return {};
}

}  // namespace

// --- the public class ---------------------------------------------------------------------------

base::result<std::unique_ptr<openai_server>> openai_server::make(openai_server_options options) {
  TROUPE_TRY_VOID(check(options));
  TROUPE_TRY(secret, options.seams.draw_seed());
  try {
    return std::unique_ptr<openai_server>(
        new openai_server(std::make_shared<impl>(std::move(options), secret)));
  } catch (const std::system_error& error) {
    return base::fail(base::error_code::resource_exhausted, "serving",
                      fmt::format("no thread for reading requests: {}", error.what()));
  }
}

openai_server::openai_server(std::shared_ptr<impl> made) : impl_(std::move(made)) {}
openai_server::~openai_server() { impl_->close(); }

void openai_server::handle(net::http_request request, std::shared_ptr<net::response> response) {
  impl_->handle({std::move(request), std::move(response), {}});
}

void openai_server::attach(net::http_server& server) {
  impl_->attach([&server](std::function<void()> call) { return server.post(std::move(call)); },
                [&server] { return server.counters(); });
}

void openai_server::attach(std::function<bool(std::function<void()>)> post) {
  impl_->attach(std::move(post), [] { return net::http_server_counters{}; });
}

void openai_server::drain() noexcept { impl_->drain(); }
std::size_t openai_server::open_requests() const noexcept { return impl_->open_requests(); }

std::pair<std::string, std::string> openai_server::error_body(int status, std::string_view what) {
  return {"application/json", error_of_status(status, what).body()};
}

// --- life ---------------------------------------------------------------------------------------

openai_server::impl::impl(openai_server_options options, std::uint64_t secret)
    : options_(std::move(options)),
      front_(std::make_shared<text_front>(options_.tokenizer, options_.chat, options_.grammars,
                                          options_.model, options_.limits,
                                          options_.seams.wall_clock)),
      tokens_(options_.tokenizer),
      counted_(options_.model.max_model_len),
      page_policy_(serving::page_policy()),
      secret_(secret),
      short_texts_({options_.limits.text_queue_max, options_.limits.text_queue_bytes_max}),
      long_texts_({options_.limits.text_queue_max, options_.limits.text_queue_bytes_max}),
      new_grammars_({options_.limits.text_queue_max, options_.limits.text_queue_bytes_max}) {}

void openai_server::impl::attach(std::function<bool(std::function<void()>)> post,
                                 std::function<net::http_server_counters()> counters) {
  // On the HTTP thread, which reads it.
  thread_->attach(std::move(post));
  thread_->post([self = weak_from_this(), counters = std::move(counters)]() mutable {
    if (const auto alive = self.lock()) alive->http_counters_ = std::move(counters);
  });
}

void openai_server::impl::close() {
  thread_->close();
  short_texts_.stop();
  long_texts_.stop();
  new_grammars_.stop();
  for (auto& [key, open] : generations_) open.work->abandon();
  generations_.clear();
}

std::shared_ptr<void> openai_server::impl::open_ticket() {
  open_->fetch_add(1);
  return {nullptr, [open = open_](void*) { open->fetch_sub(1); }};
}

std::string openai_server::impl::new_id(std::string_view prefix) {
  const std::uint64_t first = scattered(secret_ ^ last_key_);
  return fmt::format("{}-{:016x}{:016x}", prefix, first, scattered(first + secret_));
}

// The same wherever the same tokens come out for the same seed.
const std::string& openai_server::impl::fingerprint() {
  const std::string of = options_.gang.status().numerics;
  if (fingerprint_.empty() || of != fingerprint_of_) {
    const std::string all = options_.model.names.front() + '\n' + of + '\n' + options_.version +
                            '\n' + options_.build_id;
    fingerprint_ = "fp_" + base::to_hex(base::sha256_of(all)).substr(0, 12);
    fingerprint_of_ = of;
  }
  return fingerprint_;
}

// --- requests for tokens ------------------------------------------------------------------------

text_worker& openai_server::impl::texts_for(std::size_t bytes) {
  return bytes <= options_.limits.short_body_bytes ? short_texts_ : long_texts_;
}

bool openai_server::impl::enqueue(text_worker& worker, const http_exchange& exchange,
                                  std::size_t bytes, std::function<void()> job) {
  if (worker.push(bytes, std::move(job))) return true;
  ++counted_.text_queue_full;
  send_error(exchange,
             base::error{base::error_code::resource_exhausted,
                         "too many requests wait to be read; try again", "serving", true});
  return false;
}

void openai_server::impl::complete(http_exchange& exchange, endpoint at) {
  const std::size_t bytes = exchange.request.body.size();
  const auto body = std::make_shared<const std::string>(std::move(exchange.request.body));
  const arrival of{
      .key = ++last_key_, .from = exchange, .at = options_.seams.clock(), .ticket = open_ticket()};
  const bool queued = admit_later(texts_for(bytes), bytes, of,
                                  [at, body, front = front_] { return front->prepare(at, *body); });
  if (!queued) return;
  exchange.response->on_gone([self = weak_from_this(), key = of.key] {
    if (const auto alive = self.lock()) alive->client_gone(key);
  });
}

bool openai_server::impl::admit_later(text_worker& worker, std::size_t bytes, const arrival& of,
                                      std::function<api_result<prepared_request>()> make) {
  auto job = [self = weak_from_this(), of, thread = thread_, make = std::move(make)] {
    if (of.from.response->gone()) return;
    thread->post([self, of, prepared = make()]() mutable {
      if (const auto alive = self.lock()) alive->admit(of, std::move(prepared));
    });
  };
  return enqueue(worker, of.from, bytes, std::move(job));
}

void openai_server::impl::admit(const arrival& of, api_result<prepared_request> prepared) {
  const http_exchange& from = of.from;
  if (from.response->gone()) return;
  if (!prepared) return send_error(from, prepared.error());
  if (!prepared->grammar_param.empty()) {
    const std::size_t bytes = prepared->sampling.params.grammar->text.size();
    const auto shared = std::make_shared<prepared_request>(*std::move(prepared));
    static_cast<void>(admit_later(new_grammars_, bytes, of, [shared, front = front_] {
      return front->compile_grammar(std::move(*shared));
    }));
    return;
  }
  if (!mailbox_) {
    mailbox_ = std::make_shared<token_mailbox>(options_.seams.clock,
                                               [self = weak_from_this(), thread = thread_] {
                                                 thread->post([self] {
                                                   if (const auto alive = self.lock())
                                                     alive->on_mail();
                                                 });
                                               });
  }
  auto seed = prepared->sampling.seed ? base::result<std::uint64_t>(*prepared->sampling.seed)
                                      : options_.seams.draw_seed();
  if (!seed) return send_error(from, seed.error());
  const endpoint at = prepared->at;
  prepared->tenant =
      options_.keys.tenant_of(from.request.header("authorization")).value_or(std::string());
  auto work = std::make_unique<generation>(
      generation_parts{options_.gang, options_.tokenizer, *mailbox_, tokens_, counted_},
      generation_start{.key = of.key,
                       .request = std::move(*prepared),
                       .identity = {.at = at,
                                    .id = new_id(at == endpoint::chat ? "chatcmpl" : "cmpl"),
                                    .created = options_.seams.wall_clock(),
                                    .model = options_.model.names.front(),
                                    .system_fingerprint = fingerprint(),
                                    .short_call_ids = options_.model.tools == tool_format::mistral},
                       .response = from.response,
                       .arrived = of.at,
                       .route = from.route});
  work->submit(*seed);
  if (!work->done()) generations_[of.key] = {std::move(work), of.ticket};
}

void openai_server::impl::client_gone(std::uint64_t key) {
  ++counted_.clients_gone;
  const auto found = generations_.find(key);
  if (found == generations_.end()) return;
  found->second.work->abandon();
  // Later: this may be called from inside of it.
  thread_->post([self = weak_from_this(), key] {
    if (const auto alive = self.lock()) alive->generations_.erase(key);
  });
}

void openai_server::impl::on_mail() {
  std::vector<std::uint64_t> touched;
  for (const token_mail& mail : mailbox_->take()) {
    const auto found = generations_.find(mail.generation);
    if (found == generations_.end()) continue;
    found->second.work->receive(mail);
    touched.push_back(mail.generation);
  }
  for (const std::uint64_t key : touched) {
    const auto found = generations_.find(key);
    if (found == generations_.end()) continue;
    found->second.work->flush();
    if (found->second.work->done()) generations_.erase(found);
  }
}

}  // namespace troupe::serving
