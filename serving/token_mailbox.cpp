#include "serving/token_mailbox.hpp"

#include <utility>

namespace troupe::serving {

class token_mailbox::prompt_sink final : public actors::completion_sink {
 public:
  prompt_sink(std::shared_ptr<token_mailbox> box, std::uint64_t generation, std::uint32_t prompt)
      : box_(std::move(box)), generation_(generation), prompt_(prompt) {}

  void on_tokens(std::span<const actors::choice_token> tokens) override {
    box_->put({.generation = generation_,
               .prompt = prompt_,
               .at = box_->clock_(),
               .tokens = {tokens.begin(), tokens.end()},
               .end = {}});
  }
  void on_end(base::result<void> outcome) override {
    box_->put({.generation = generation_,
               .prompt = prompt_,
               .at = box_->clock_(),
               .tokens = {},
               .end = std::move(outcome)});
  }

 private:
  std::shared_ptr<token_mailbox> box_;
  std::uint64_t generation_;
  std::uint32_t prompt_;
};

std::shared_ptr<actors::completion_sink> token_mailbox::sink(std::uint64_t generation,
                                                             std::uint32_t prompt) {
  return std::make_shared<prompt_sink>(shared_from_this(), generation, prompt);
}

void token_mailbox::put(token_mail mail) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = mail_.empty();
    mail_.push_back(std::move(mail));
  }
  if (first) wake_();
}

std::vector<token_mail> token_mailbox::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(mail_, {});
}

}  // namespace troupe::serving
