#include "serving/generation.hpp"

#include <algorithm>
#include <utility>

namespace troupe::serving {
namespace {

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

api_error internal(std::string message) {
  return {base::error{base::error_code::internal, std::move(message), "serving"}};
}

}  // namespace

generation::generation(generation_parts parts, generation_start start)
    : parts_(parts),
      key_(start.key),
      request_(std::move(start.request)),
      id_(start.identity.id),
      writer_(start.identity, request_.sampling, parts_.tokens),
      response_(std::move(start.response)),
      arrived_(start.arrived),
      last_mail_(start.arrived),
      route_(start.route),
      prompts_(request_.prompts.size()) {}

base::result<void> generation::make_choices() {
  const sampling_request& sampling = request_.sampling;
  for (std::uint32_t prompt = 0; prompt < prompts_.size(); ++prompt) {
    for (std::uint32_t i = 0; i < sampling.choices; ++i) {
      const auto& logits = sampling.params.logits;
      TROUPE_TRY(text,
                 choice_text::make(parts_.tokenizer, sampling.skip_special_tokens, sampling.stop,
                                   logits ? logits->min_tokens : 0, request_.markers));
      choices_.push_back({.index = prompt * sampling.choices + i,
                          .prompt = prompt,
                          .text = std::move(text),
                          .whole = {},
                          .tokens = {},
                          .first = {},
                          .last = {},
                          .finish = {},
                          .parser = make_answer_parser(request_.form),
                          .pieces = {}});
    }
  }
  unfinished_ = choices_.size();
  return {};
}

void generation::submit(std::uint64_t seed) {
  if (auto made = make_choices(); !made) return fail(made.error());
  request_metrics& metrics = parts_.metrics;
  metrics.params_n.observe(request_.sampling.returned);
  for (std::uint32_t prompt = 0; prompt < prompts_.size(); ++prompt) {
    actors::completion_request wanted;
    wanted.prompt_ids = request_.prompts[prompt];
    wanted.params = request_.sampling.params;
    wanted.params.seed = seed;
    // No tokens are computed for the prompt's own sake alone: one comes, and is not shown.
    wanted.params.max_tokens = std::max<std::int64_t>(1, request_.max_tokens[prompt]);
    wanted.choices = request_.sampling.choices;
    wanted.scope = {.tenant = request_.tenant, .salt = request_.sampling.cache_salt};
    metrics.params_max_tokens.observe(static_cast<double>(wanted.params.max_tokens));
    auto id = parts_.gang.submit(std::move(wanted), parts_.mailbox.sink(key_, prompt));
    if (!id) return fail(id.error());
    prompts_[prompt].id = *id;
  }
}

void generation::receive(const token_mail& mail) {
  if (done_) return;
  last_mail_ = mail.at;
  for (const actors::choice_token& token : mail.tokens) {
    on_token(token, mail.prompt, mail.at);
    if (done_) return;
  }
  if (mail.end) on_end(*mail.end, mail.prompt, mail.at);
}

void generation::on_token(const actors::choice_token& token, std::uint32_t prompt,
                          std::chrono::steady_clock::time_point at) {
  if (token.choice >= request_.sampling.choices) {
    return fail(internal("the gang sent a token of a choice that nobody asked for"));
  }
  choice& of = choices_[prompt * request_.sampling.choices + token.choice];
  if (of.finish) return;  // a token on its way when the stop string was found
  if (!token.token.finite) {
    return fail(internal("the model's output was not a number; see the server's log"));
  }
  if (token.cached_tokens && token.choice == 0) cached_tokens_ += *token.cached_tokens;
  keep_prompt_logprobs(token, prompt);
  const bool shown = request_.max_tokens[prompt] > 0;
  std::string out = of.token_count == 0 ? echo(of) : std::string();
  if (shown) {
    count_token(of, at);
    of.logprob += static_cast<double>(token.token.logprob);
    if (keeps_tokens()) of.tokens.push_back(token.token);
    auto text = advance(of, token);
    if (!text) return fail(text.error());
    out += *text;
  } else {
    of.finish = schemas::finish_reason::length;
  }
  if (of.finish && !token.finished && prompts_[prompt].id) {
    parts_.gang.finish_choice(*prompts_[prompt].id, token.choice);
  }
  if (of.parser) parse(of, out);
  if (request_.sampling.stream) {
    begin_stream();
    send_part(of, out);
  } else {
    of.whole += out;
  }
  if (!of.finish) return;
  count_finished(
      of, *of.finish == schemas::finish_reason::stop ? finish_kind::stop : finish_kind::length, at);
  if (--unfinished_ == 0) complete();
}

void generation::keep_prompt_logprobs(const actors::choice_token& token, std::uint32_t prompt) {
  if (request_.sampling.params.prompt_logprobs < 0 || token.choice != 0) return;
  std::vector<schemas::sampled_token>& kept = prompts_[prompt].logprobs;
  if (!kept.empty()) return;
  kept.push_back({.sequence = {}, .token_id = request_.prompts[prompt].front(), .top = {}});
  kept.insert(kept.end(), token.prompt_logprobs.begin(), token.prompt_logprobs.end());
}

std::string generation::echo(choice& of) {
  if (!request_.sampling.echo) return {};
  if (request_.sampling.logprobs()) {
    // Choice 0 is the oldest of its prompt, so its first token is never later than another's.
    of.tokens = prompts_[of.prompt].logprobs;
    of.echoed = of.tokens.size();
  }
  return request_.echoes[of.prompt];
}

base::result<std::string> generation::advance(choice& of, const actors::choice_token& token) {
  std::string out;
  // The token that ends a sequence is no part of its text, as in vLLM; it counts and has a logprob.
  if (token.finished != schemas::finish_reason::stop) {
    TROUPE_TRY(piece, of.text.push(token.token.token_id));
    out = std::move(piece);
  }
  if (!of.text.stopped() && token.finished) {
    TROUPE_TRY(rest, of.text.finish());
    out += rest;
    of.finish = token.finished;
  }
  if (of.text.stopped()) of.finish = schemas::finish_reason::stop;
  return out;
}

void generation::on_end(const base::result<void>& outcome, std::uint32_t prompt,
                        std::chrono::steady_clock::time_point at) {
  static_cast<void>(at);
  prompts_[prompt].ended = true;
  if (!outcome) return fail(outcome.error());
  const bool open = std::any_of(choices_.begin(), choices_.end(), [&](const choice& of) {
    return of.prompt == prompt && !of.finish;
  });
  if (open) fail(internal("the gang ended a request before all of its choices were finished"));
}

void generation::begin_stream() {
  if (begun_) return;
  begun_ = true;
  ++parts_.metrics.answers[{route_, 200}];
  response_->begin(200, {{"content-type", "text/event-stream; charset=utf-8"},
                         {"cache-control", "no-cache"},
                         {"x-accel-buffering", "no"},
                         {"x-request-id", id_}});
  if (request_.at != endpoint::chat) return;
  for (const choice& of : choices_) {
    writer_.append_role(unsent_, of.index, request_.prompts[of.prompt], usage());
  }
}

void generation::parse(choice& of, std::string_view text) {
  of.parser->push(text, of.pieces);
  if (of.finish) of.parser->finish(of.pieces);
  of.called = of.called || std::any_of(of.pieces.begin(), of.pieces.end(), [](const auto& piece) {
                return piece.of == answer_piece::kind::call;
              });
}

void generation::send_part(choice& of, std::string_view text) {
  const bool nothing = of.parser ? of.pieces.empty() : text.empty();
  if (nothing && !of.finish) return;  // rides with the next
  const bool with_prompt = request_.sampling.return_token_ids && !of.prompt_ids_sent &&
                           request_.at == endpoint::completion;
  of.prompt_ids_sent = of.prompt_ids_sent || with_prompt;
  writer_.append_delta(unsent_,
                       {.index = of.index,
                        .text = text,
                        .tokens = of.tokens,
                        .echoed = std::exchange(of.echoed, 0),
                        .text_offset = of.text_offset,
                        .finish = of.finish,
                        .pieces = of.parser ? &of.pieces : nullptr,
                        .ends_in_calls = of.called && request_.calls_end_answers,
                        .prompt_ids = with_prompt ? &request_.prompts[of.prompt] : nullptr},
                       usage());
  if (request_.sampling.logprobs()) of.text_offset += writer_.characters(of.tokens);
  of.tokens.clear();
  of.pieces.clear();
}

void generation::flush() {
  if (unsent_.empty() || done_) return;
  response_->write(std::exchange(unsent_, {}));
}

void generation::complete() {
  done_ = true;
  std::int64_t longest = 0;
  for (const choice& of : choices_) longest = std::max(longest, of.token_count);
  parts_.metrics.max_generation_tokens.observe(static_cast<double>(longest));
  if (request_.sampling.stream) {
    if (request_.sampling.include_usage) writer_.append_usage(unsent_, usage());
    answer_writer::append_done(unsent_);
    response_->write(std::exchange(unsent_, {}));
    response_->finish();
    return;
  }
  std::vector<choice_part> parts;
  for (const choice& of : best_choices()) {
    parts.push_back(
        {.index = of.index,
         .text = of.whole,
         .tokens = of.tokens,
         .echoed = of.echoed,
         .finish = of.finish,
         .pieces = of.parser ? &of.pieces : nullptr,
         .ends_in_calls = of.called && request_.calls_end_answers,
         .prompt_ids = request_.sampling.return_token_ids ? &request_.prompts[of.prompt] : nullptr,
         .prompt_logprobs =
             request_.sampling.prompt_logprobs_field ? &prompts_[of.prompt].logprobs : nullptr});
  }
  ++parts_.metrics.answers[{route_, 200}];
  response_->send(200, {{"content-type", "application/json"}, {"x-request-id", id_}},
                  writer_.whole(parts, usage()));
}

// Of each prompt the n whose tokens were most likely on average, best first, numbered anew.
std::span<const generation::choice> generation::best_choices() {
  const sampling_request& sampling = request_.sampling;
  if (sampling.returned == sampling.choices) return choices_;
  const auto better = [](const choice& a, const choice& b) {
    return a.logprob * static_cast<double>(b.token_count) >
           b.logprob * static_cast<double>(a.token_count);
  };
  std::vector<choice> best;
  for (std::size_t prompt = 0; prompt < prompts_.size(); ++prompt) {
    const auto begin = choices_.begin() + static_cast<std::ptrdiff_t>(prompt * sampling.choices);
    std::stable_sort(begin, begin + sampling.choices, better);
    for (std::uint32_t i = 0; i < sampling.returned; ++i) {
      best.push_back(std::move(begin[i]));
      best.back().index = static_cast<std::uint32_t>(prompt) * sampling.returned + i;
    }
  }
  best_ = std::move(best);
  return best_;
}

void generation::fail(const api_error& error) {
  done_ = true;
  cancel_open();
  count_unfinished(finish_kind::error);
  if (!begun_) {
    ++parts_.metrics.answers[{route_, error.status}];
    send_error(*response_, error);
    return;
  }
  ++parts_.metrics.stream_errors;
  response_->write(std::exchange(unsent_, {}) + "data: " + error.body() + "\n\n");
  // Ended in order: a cut may overtake what was written last, and browsers drop what they have not
  // read of a stream that breaks.
  response_->finish();
}

void generation::abandon() {
  if (done_) return;
  done_ = true;
  cancel_open();
  count_unfinished(finish_kind::abort);
}

void generation::cancel_open() {
  for (const part_of_prompt& prompt : prompts_) {
    if (prompt.id && !prompt.ended) parts_.gang.cancel(*prompt.id);
  }
}

void generation::count_token(choice& of, std::chrono::steady_clock::time_point at) {
  if (of.token_count == 0) {
    of.first = at;
    parts_.metrics.time_to_first_token.observe(seconds(at - arrived_));
  } else {
    parts_.metrics.inter_token_latency.observe(seconds(at - of.last));
  }
  of.last = at;
  ++of.token_count;
}

void generation::count_finished(const choice& of, finish_kind kind,
                                std::chrono::steady_clock::time_point at) {
  request_metrics& metrics = parts_.metrics;
  ++metrics.finished[static_cast<std::size_t>(kind)];
  metrics.e2e_latency.observe(seconds(at - arrived_));
  metrics.prompt_tokens.observe(static_cast<double>(request_.prompts[of.prompt].size()));
  metrics.generation_tokens.observe(static_cast<double>(of.token_count));
  if (of.token_count == 0) return;
  const double decode = seconds(of.last - of.first);
  metrics.decode_time.observe(decode);
  if (of.token_count > 1) {
    metrics.time_per_output_token.observe(decode / static_cast<double>(of.token_count - 1));
  }
}

void generation::count_unfinished(finish_kind kind) {
  for (const choice& of : choices_) {
    if (!of.finish) count_finished(of, kind, last_mail_);
  }
}

token_usage generation::usage() const {
  token_usage sum;
  for (const std::vector<std::int32_t>& prompt : request_.prompts) {
    sum.prompt_tokens += static_cast<std::int64_t>(prompt.size());
  }
  for (const choice& of : choices_) sum.completion_tokens += of.token_count;
  sum.cached_tokens = cached_tokens_;
  return sum;
}

bool generation::keeps_tokens() const {
  return request_.sampling.logprobs() || request_.sampling.return_token_ids;
}

}  // namespace troupe::serving
