// Carries tokens from the leader's thread to the HTTP thread: a step costs the leader one lock and,
// when the HTTP thread is not already on its way, one post for all requests together.
//
// Bounded by what the gang may have in flight: each request's tokens are, and cancelled ones end.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "actors/gang_service.hpp"

namespace troupe::serving {

// One call of a sink: tokens, or the end.
struct token_mail {
  std::uint64_t generation = 0;  // which request
  std::uint32_t prompt = 0;      // which of its prompts
  std::chrono::steady_clock::time_point at;
  std::vector<actors::choice_token> tokens;
  std::optional<base::result<void>> end;
};

class token_mailbox : public std::enable_shared_from_this<token_mailbox> {
 public:
  // `wake` is called when mail comes into an empty box; it must cause a take().
  token_mailbox(std::function<std::chrono::steady_clock::time_point()> clock,
                std::function<void()> wake)
      : clock_(std::move(clock)), wake_(std::move(wake)) {}

  // A sink for one prompt of one request. It keeps the box alive.
  [[nodiscard]] std::shared_ptr<actors::completion_sink> sink(std::uint64_t generation,
                                                              std::uint32_t prompt);
  // All mail so far, in order.
  [[nodiscard]] std::vector<token_mail> take();

 private:
  class prompt_sink;
  void put(token_mail mail);

  std::function<std::chrono::steady_clock::time_point()> clock_;
  std::function<void()> wake_;
  std::mutex mutex_;
  std::vector<token_mail> mail_;
};

}  // namespace troupe::serving
