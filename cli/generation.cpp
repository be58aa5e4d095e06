#include "cli/generation.hpp"

#include <chrono>
#include <unordered_map>
#include <utility>

#include "models/text/detokenizer.hpp"
#include "models/text/stop_matcher.hpp"

namespace troupe::cli {
namespace {

// A choice while it runs.
struct open_choice {
  std::size_t index = 0;
  std::optional<text::detokenizer> detokenizer;
  text::stop_matcher stops;
};

// Text that became certain by `token`, before stop strings.
base::result<std::string> text_of(open_choice& choice, std::int32_t token) {
  if (!choice.detokenizer) return std::string();
  return choice.detokenizer->push(token);
}

base::result<std::string> last_text(open_choice& choice) {
  std::string out;
  if (choice.detokenizer) {
    TROUPE_TRY(rest, choice.detokenizer->finish());
    out = choice.stops.push(rest);
  }
  return out + choice.stops.finish();
}

class generation_run {
 public:
  generation_run(engine::engine& on, const generation_request& request)
      : engine_(on), request_(request), begin_(std::chrono::steady_clock::now()) {}

  base::result<generation> run() {
    TROUPE_TRY_VOID(admit());
    while (!open_.empty()) {
      TROUPE_TRY(events, engine_.step());
      for (engine::engine_event& event : events) {
        if (event.failed) return tl::unexpected(*std::move(event.failed));
        TROUPE_TRY_VOID(accept(std::move(event)));
      }
    }
    result_.decode_s = seconds() - result_.prefill_s;
    return std::move(result_);
  }

 private:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

  base::result<void> admit() {
    result_.choices.resize(request_.choices);
    for (std::uint32_t choice = 0; choice < request_.choices; ++choice) {
      engine::sequence_log log{request_.params, request_.prompt_ids, {}};
      log.params.choice = choice;
      TROUPE_TRY(id, engine_.add(std::move(log)));
      open_choice opened{choice, std::nullopt, text::stop_matcher(request_.stop)};
      if (request_.tokenizer != nullptr) {
        TROUPE_TRY(stream, text::detokenizer::make(*request_.tokenizer, {}));
        opened.detokenizer.emplace(std::move(stream));
      }
      open_.emplace(id, std::move(opened));
    }
    return {};
  }

  base::result<void> accept(engine::engine_event event) {
    open_choice& choice = open_.at(event.token.sequence);
    generated_choice& made = result_.choices[choice.index];
    if (result_.prefill_s == 0.0) result_.prefill_s = seconds();
    TROUPE_TRY(piece, text_of(choice, event.token.token_id));
    std::string certain = choice.stops.push(piece);
    const base::sequence_id id = event.token.sequence;
    made.tokens.push_back(std::move(event.token));
    if (choice.stops.stopped()) {
      made.finish = engine::finish_reason::stop;
      engine_.remove(id);
    } else if (event.finished) {
      made.finish = *event.finished;
      TROUPE_TRY(rest, last_text(choice));
      certain += rest;
      if (choice.stops.stopped()) made.finish = engine::finish_reason::stop;
    }
    made.text += certain;
    if (choice.index == 0 && request_.on_text && !certain.empty()) request_.on_text(certain);
    if (choice.stops.stopped() || event.finished) open_.erase(id);
    return {};
  }

  engine::engine& engine_;
  const generation_request& request_;
  std::chrono::steady_clock::time_point begin_;
  std::unordered_map<base::sequence_id, open_choice> open_;
  generation result_;
};

}  // namespace

base::result<generation> run_generation(engine::engine& on, const generation_request& request) {
  return generation_run(on, request).run();
}

}  // namespace troupe::cli
