#include "net/answer.hpp"

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "base/check.hpp"

namespace troupe::net {
namespace {

class held_response final : public response {
 public:
  explicit held_response(std::shared_ptr<answer> target) : answer_(std::move(target)) {}
  held_response(const held_response&) = delete;
  held_response& operator=(const held_response&) = delete;
  ~held_response() override { answer_->abandon(); }

  void send(int status, std::vector<header_field> headers, std::string body) override {
    answer_->send(status, headers, body);
  }
  void begin(int status, std::vector<header_field> headers) override {
    answer_->begin(status, headers);
  }
  void write(std::string bytes) override { answer_->write(bytes); }
  void finish() override { answer_->finish(); }
  void cut() override { answer_->cut(); }
  void on_gone(std::function<void()> call) override { answer_->on_gone(std::move(call)); }
  [[nodiscard]] bool gone() const noexcept override { return answer_->gone(); }
  [[nodiscard]] std::size_t unsent_bytes() const noexcept override {
    return answer_->unsent_bytes();
  }

 private:
  std::shared_ptr<answer> answer_;
};

}  // namespace

std::shared_ptr<response> make_response(std::shared_ptr<answer> target) {
  return std::make_shared<held_response>(std::move(target));
}

bool answer::bodyless(int status) const noexcept {
  return terms_.head_only || status == 204 || status == 304;
}

void answer::ring(std::unique_lock<std::mutex> lock) {
  if (std::exchange(rung_, true)) return;
  lock.unlock();
  gate_->changed(terms_.connection);
}

void answer::end(std::unique_lock<std::mutex> lock, state last) {
  state_ = last;
  const std::function<void()> dropped = std::exchange(gone_call_, nullptr);
  ring(std::move(lock));  // unlocked before `dropped` is destroyed: it may own anything
}

void answer::send(int status, const std::vector<header_field>& headers, const std::string& body) {
  const bool no_length = status == 204 || status == 304;
  std::string bytes =
      format_answer_head({.status = status,
                          .fields = &headers,
                          .framing = no_length ? body_framing::none : body_framing::length,
                          .length = body.size(),
                          .close = terms_.close || gate_->stopping(),
                          .date = gate_->date()});
  if (!bodyless(status)) bytes += body;
  std::unique_lock lock(mutex_);
  if (gone() || state_ == state::cut) return;
  TROUPE_CHECK(state_ == state::unanswered);
  waiting_ = std::move(bytes);
  end(std::move(lock), state::complete);
}

void answer::begin(int status, const std::vector<header_field>& headers) {
  const bool no_length = status == 204 || status == 304;
  const body_framing framing = no_length         ? body_framing::none
                               : terms_.http_1_0 ? body_framing::until_close
                                                 : body_framing::chunked;
  std::string bytes = format_answer_head({.status = status,
                                          .fields = &headers,
                                          .framing = framing,
                                          .close = terms_.close || gate_->stopping(),
                                          .date = gate_->date()});
  std::unique_lock lock(mutex_);
  if (gone() || state_ == state::cut) return;
  TROUPE_CHECK(state_ == state::unanswered);
  state_ = state::streaming;
  body_dropped_ = bodyless(status);
  waiting_ = std::move(bytes);
  ring(std::move(lock));
}

void answer::write(const std::string& bytes) {
  std::unique_lock lock(mutex_);
  if (gone() || state_ == state::cut) return;
  TROUPE_CHECK(state_ == state::streaming);
  if (bytes.empty() || body_dropped_) return;  // an empty chunk would end the stream
  const std::size_t unsent = waiting_.size() + outgoing_.load(std::memory_order_relaxed);
  if (unsent > 0 && unsent + bytes.size() > terms_.unsent_bytes_max) {
    overflow_ = true;
    gone_.store(true, std::memory_order_release);
    waiting_ = {};
    ring(std::move(lock));
    return;
  }
  if (terms_.http_1_0) {
    waiting_ += bytes;
  } else {
    fmt::format_to(std::back_inserter(waiting_), "{:x}\r\n", bytes.size());
    waiting_ += bytes;
    waiting_ += "\r\n";
  }
  ring(std::move(lock));
}

std::size_t answer::unsent_bytes() {
  const std::lock_guard lock(mutex_);
  return waiting_.size() + outgoing_.load(std::memory_order_relaxed);
}

void answer::finish() {
  std::unique_lock lock(mutex_);
  if (gone() || state_ == state::cut) return;
  TROUPE_CHECK(state_ == state::streaming);
  if (!body_dropped_ && !terms_.http_1_0) waiting_ += "0\r\n\r\n";
  end(std::move(lock), state::complete);
}

void answer::cut() {
  std::unique_lock lock(mutex_);
  if (gone() || (state_ != state::unanswered && state_ != state::streaming)) return;
  end(std::move(lock), state::cut);
}

void answer::abandon() {
  std::unique_lock lock(mutex_);
  if (gone() || (state_ != state::unanswered && state_ != state::streaming)) return;
  end(std::move(lock), state_ == state::unanswered ? state::abandoned : state::cut);
}

void answer::on_gone(std::function<void()> call) {
  if (!call) return;
  {
    const std::lock_guard lock(mutex_);
    if (!lost_) {
      const bool open = state_ == state::unanswered || state_ == state::streaming;
      if (open) gone_call_.swap(call);  // what it replaces is destroyed outside the lock
      return;
    }
  }
  if (!gate_->post(call)) call();
}

answer::portion answer::take(std::string& out, std::size_t sent) {
  const std::lock_guard lock(mutex_);
  rung_ = false;
  if (out.empty()) {
    out.swap(waiting_);
  } else {
    out += waiting_;
    waiting_.clear();
  }
  set_outgoing(out.size() - sent);
  return {.complete = state_ == state::complete,
          .cut = state_ == state::cut,
          .abandoned = state_ == state::abandoned,
          .overflow = overflow_};
}

void answer::lose() {
  std::function<void()> call;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(lost_, true)) return;
    gone_.store(true, std::memory_order_release);
    waiting_ = {};
    call = std::exchange(gone_call_, nullptr);
  }
  if (call) call();
}

}  // namespace troupe::net
