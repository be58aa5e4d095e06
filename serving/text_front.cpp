#include "serving/text_front.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "serving/chat_messages.hpp"
#include "serving/json_text.hpp"
#include "serving/logit_request.hpp"

namespace troupe::serving {
namespace {

// As in OpenAI's API where a text completion names none.
constexpr std::int64_t completion_max_tokens = 16;

text::civil_time civil(std::chrono::seconds unix_time) {
  using namespace std::chrono;
  const sys_seconds at(unix_time);
  const sys_days day = floor<days>(at);
  const year_month_day date(day);
  const hh_mm_ss clock(at - day);
  return {.year = static_cast<int>(date.year()),
          .month = static_cast<std::int32_t>(static_cast<unsigned>(date.month())),
          .day = static_cast<std::int32_t>(static_cast<unsigned>(date.day())),
          .hour = static_cast<std::int32_t>(clock.hours().count()),
          .minute = static_cast<std::int32_t>(clock.minutes().count()),
          .second = static_cast<std::int32_t>(clock.seconds().count())};
}

bool is_ids(const json& value) {
  return value.is_array() && !value.empty() && value[0].is_number();
}

}  // namespace

api_error no_such_model(const std::string& name, const served_model& model) {
  api_error error =
      error_of_status(404, fmt::format("model: {} is not served here; this server has {}",
                                       shown(name), fmt::join(model.names, ", ")));
  error.param = "model";
  error.code = "model_not_found";
  return error;
}

api_result<json> text_front::read_body(std::string_view body) const {
  TROUPE_TRY(root, parse_body(body, {limits_.json_depth_max, limits_.json_values_max}));
  const field_reader fields(root);
  TROUPE_TRY(name, fields.string("model"));
  if (name && std::find(model_.names.begin(), model_.names.end(), *name) == model_.names.end()) {
    return tl::unexpected(no_such_model(*name, model_));
  }
  return std::move(root);
}

api_result<text_front::token_ids> text_front::encode(std::string_view text,
                                                     const std::string& param,
                                                     bool add_special_tokens) const {
  if (tokenizer_ == nullptr) {
    return refuse(param, "this model has no tokenizer; send token ids", "unsupported_parameter");
  }
  auto ids = tokenizer_->encode(text, {.add_special_tokens = add_special_tokens});
  if (!ids) return refuse(param, ids.error().message);
  return *std::move(ids);
}

api_result<text_front::token_ids> text_front::read_ids(const json& list,
                                                       const std::string& param) const {
  token_ids out;
  out.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const json& id = list[i];
    // The name of the place is made only where it is needed: there may be a million.
    if (!id.is_number_unsigned() ||
        id.get<std::uint64_t>() >= static_cast<std::uint64_t>(model_.vocab_size)) {
      return refuse(
          fmt::format("{}[{}]", param, i),
          fmt::format("expected a token id from 0 to {}, got {}", model_.vocab_size - 1, shown(id)),
          id.is_number() ? "invalid_value" : "invalid_type");
    }
    out.push_back(static_cast<std::int32_t>(id.get<std::uint64_t>()));
  }
  return out;
}

api_result<text_front::token_ids> text_front::read_prompt(const json& value,
                                                          const std::string& param,
                                                          bool add_special_tokens) const {
  if (value.is_string()) {
    return encode(value.get_ref<const std::string&>(), param, add_special_tokens);
  }
  if (is_ids(value)) return read_ids(value, param);
  return refuse(param, "expected a string or a list of token ids, got " + shown(value),
                "invalid_type");
}

api_result<std::vector<text_front::token_ids>> text_front::read_prompts(const json& body) const {
  const field_reader fields(body);
  const json* const prompt = fields.find("prompt");
  if (prompt == nullptr) return refuse("prompt", "is missing", "missing_parameter");
  TROUPE_TRY(special, fields.boolean("add_special_tokens", true));
  std::vector<token_ids> out;
  if (!prompt->is_array() || is_ids(*prompt)) {
    TROUPE_TRY(ids, read_prompt(*prompt, "prompt", special));
    out.push_back(std::move(ids));
    return out;
  }
  if (prompt->empty()) return refuse("prompt", "expected at least one prompt, got none");
  if (prompt->size() > limits_.prompts_max) {
    return refuse("prompt", fmt::format("{} prompts, at most {} are allowed", prompt->size(),
                                        limits_.prompts_max));
  }
  for (std::size_t i = 0; i < prompt->size(); ++i) {
    TROUPE_TRY(ids, read_prompt((*prompt)[i], fmt::format("prompt[{}]", i), special));
    out.push_back(std::move(ids));
  }
  return out;
}

// As they were sent; of token ids what they stand for.
api_result<std::vector<std::string>> text_front::texts_of_prompts(
    const json& body, const std::vector<token_ids>& prompts, bool skip_special_tokens) const {
  const json& sent = *field_reader(body).find("prompt");
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const json& prompt = sent.is_array() && !is_ids(sent) ? sent[i] : sent;
    if (prompt.is_string()) {
      texts.push_back(prompt.get<std::string>());
    } else if (tokenizer_ == nullptr) {
      texts.emplace_back();
    } else {
      auto text = tokenizer_->decode(prompts[i], {.skip_special_tokens = skip_special_tokens});
      if (!text) return refuse("prompt", text.error().message);
      texts.push_back(*std::move(text));
    }
  }
  return texts;
}

api_result<std::string> text_front::read_chat_text(const json& body,
                                                   const tool_request& tools) const {
  TROUPE_TRY(chat, read_chat(body, limits_));
  if (chat_ == nullptr) {
    return refuse("messages", "this model has no chat template; use /v1/completions",
                  "unsupported_parameter");
  }
  const text::civil_time now = civil(wall_clock_());
  if (tools.tools_json.empty()) return render_chat(*chat_, chat, now);
  chat_prompt told = chat;
  told.tools_json = tools.tools_json;
  TROUPE_TRY(with, render_chat(*chat_, told, now));
  if (tools.forced() || writes_tools_) return with;
  TROUPE_TRY(without, render_chat(*chat_, chat, now));
  if (with == without) {
    return refuse("tools",
                  "this model's chat template does not write them, so it would not know "
                  "of any; use tool_choice required, or leave them out",
                  "unsupported_parameter");
  }
  writes_tools_ = true;
  return with;
}

// The answer is JSON from its first character on, so there is nothing for the model's own format.
api_result<void> text_front::force_calls(const tool_request& tools, prepared_request& out) const {
  if (out.sampling.params.grammar) {
    return refuse("tool_choice", "cannot be given beside a form of the answer");
  }
  TROUPE_TRY_VOID(
      take_grammar({std::make_shared<schemas::output_grammar>(schemas::output_grammar{
                        schemas::output_grammar::kind::json_schema, tools.answer_schema}),
                    "tools"},
                   out));
  out.form.list_of_calls = tools.mode == tool_request::choice::required;
  out.form.function = tools.function;
  out.calls_end_answers = out.form.list_of_calls;
  return {};
}

api_result<void> text_front::read_chat_prompt(const json& body, prepared_request& out) const {
  TROUPE_TRY(tools, read_tools(body, limits_));
  TROUPE_TRY(text, read_chat_text(body, tools));
  // The template writes the special tokens itself.
  TROUPE_TRY(ids, encode(text, "messages", false));
  out.prompts.push_back(std::move(ids));
  if (!tools.parallel) out.form.calls_max = 1;
  if (tools.forced()) return force_calls(tools, out);
  if (out.sampling.params.grammar) {  // it begins with the answer's first character
    if (tools.mode == tool_request::choice::none) return {};
    return refuse("tools", "cannot be given beside a form of the answer; use tool_choice none");
  }
  out.form.reasoning = model_.reasoning;
  const std::size_t end = text.find_last_not_of(" \n\r\t");
  out.form.reasoning_open =
      end != std::string::npos && std::string_view(text).substr(0, end + 1).ends_with("<think>");
  if (out.form.reasoning != reasoning_format::none) keep_markers({"<think>", "</think>"}, out);
  if (tools.mode == tool_request::choice::none) return {};
  if (model_.tools == tool_format::none) {
    return refuse("tools",
                  "how this model writes calls is not known: start the server with "
                  "--tool-call-parser, or use tool_choice required",
                  "unsupported_parameter");
  }
  out.form.tools = model_.tools;
  keep_markers(markers_of(model_.tools), out);
  return {};
}

// Special tokens are left out of texts; those that the parser looks for are not.
void text_front::keep_markers(const std::vector<std::string_view>& texts,
                              prepared_request& out) const {
  for (const std::string_view text : texts) {
    const auto id = tokenizer_->token_to_id(text);
    if (id && tokenizer_->is_special(*id)) out.markers.push_back(*id);
  }
}

api_result<void> text_front::fit_length(prepared_request& request) const {
  const std::string param = request.at == endpoint::chat ? "messages" : "prompt";
  for (const token_ids& prompt : request.prompts) {
    const auto size = static_cast<std::int64_t>(prompt.size());
    if (size == 0) return refuse(param, "has no tokens");
    const std::int64_t room = model_.max_model_len - size;
    const std::int64_t asked = request.sampling.max_tokens.value_or(1);
    if (asked > room) {
      return refuse(
          request.sampling.max_tokens && room > 0 ? request.sampling.max_tokens_param : param,
          fmt::format("the prompt has {} tokens and {} are asked for, but this model's "
                      "context holds {}",
                      size, asked, model_.max_model_len),
          "context_length_exceeded");
    }
    const std::int64_t fallback =
        request.at == endpoint::chat ? room : std::min(completion_max_tokens, room);
    request.max_tokens.push_back(request.sampling.max_tokens.value_or(fallback));
    const auto& logits = request.sampling.params.logits;
    if (logits && logits->min_tokens > request.max_tokens.back()) {
      return refuse("min_tokens", fmt::format("is {}, more than max_tokens, {}", logits->min_tokens,
                                              request.max_tokens.back()));
    }
  }
  const std::int64_t total = static_cast<std::int64_t>(request.prompts.size()) *
                             static_cast<std::int64_t>(request.sampling.choices);
  if (total > limits_.choices_total_max) {
    return refuse("n", fmt::format("{} prompts with {} choices each are {} answers, at most {} "
                                   "are allowed",
                                   request.prompts.size(), request.sampling.choices, total,
                                   limits_.choices_total_max));
  }
  return {};
}

namespace {

api_result<void> compiled_or_refused(const text::grammar_cache::entry& compiled,
                                     const std::string& param) {
  if (compiled) return {};
  // Too many are being compiled: again in some seconds.
  if (compiled.error().code == base::error_code::unavailable) {
    return tl::unexpected(api_error(compiled.error()));
  }
  return refuse(param, compiled.error().message, "invalid_grammar");
}

}  // namespace

api_result<void> text_front::take_grammar(structured_output asked, prepared_request& out) const {
  if (!asked.grammar) return {};
  if (grammars_ == nullptr) {
    return refuse(asked.param,
                  "this model has no tokenizer whose tokens stand for bytes, so no answer can "
                  "follow a grammar",
                  "unsupported_parameter");
  }
  out.sampling.params.grammar = std::move(asked.grammar);
  if (const auto known = grammars_->find(*out.sampling.params.grammar)) {
    return compiled_or_refused(*known, asked.param);
  }
  out.grammar_param = std::move(asked.param);
  return {};
}

api_result<prepared_request> text_front::compile_grammar(prepared_request request) const {
  TROUPE_TRY_VOID(
      compiled_or_refused(grammars_->get(*request.sampling.params.grammar), request.grammar_param));
  request.grammar_param.clear();
  return request;
}

api_result<prepared_request> text_front::prepare(endpoint at, std::string_view body) const {
  TROUPE_TRY(root, read_body(body));
  prepared_request out;
  out.at = at;
  TROUPE_TRY(sampling, read_sampling(root, at, model_, limits_));
  out.sampling = std::move(sampling);
  TROUPE_TRY(logits, read_logit_params(root, model_, limits_, tokenizer_));
  out.sampling.params.logits = std::move(logits);
  TROUPE_TRY(structured, read_structured_output(root));
  TROUPE_TRY_VOID(take_grammar(std::move(structured), out));
  if (tokenizer_ == nullptr) {
    if (!out.sampling.stop.empty()) {
      return refuse("stop", "this model has no tokenizer; use stop_token_ids",
                    "unsupported_parameter");
    }
    out.sampling.return_token_ids = true;  // an answer without text and ids would say nothing
  }
  if (at == endpoint::chat) {
    TROUPE_TRY_VOID(read_chat_prompt(root, out));
  } else {
    TROUPE_TRY(prompts, read_prompts(root));
    out.prompts = std::move(prompts);
    if (out.sampling.echo) {
      TROUPE_TRY(texts, texts_of_prompts(root, out.prompts, out.sampling.skip_special_tokens));
      out.echoes = std::move(texts);
    }
  }
  TROUPE_TRY_VOID(fit_length(out));
  return out;
}

api_result<std::string> text_front::tokenize(std::string_view body) const {
  TROUPE_TRY(root, read_body(body));
  const field_reader fields(root);
  const bool chat = fields.find("messages") != nullptr;
  token_ids ids;
  if (chat) {
    TROUPE_TRY(tools, read_tools(root, limits_));
    TROUPE_TRY(text, read_chat_text(root, tools));
    TROUPE_TRY(made, encode(text, "messages", false));
    ids = std::move(made);
  } else {
    TROUPE_TRY(prompt, fields.string("prompt"));
    if (!prompt) return refuse("prompt", "is missing", "missing_parameter");
    TROUPE_TRY(special, fields.boolean("add_special_tokens", true));
    TROUPE_TRY(made, encode(*prompt, "prompt", special));
    ids = std::move(made);
  }
  TROUPE_TRY(strings, fields.boolean("return_token_strs", false));
  std::string out =
      fmt::format(R"({{"count":{},"max_model_len":{},"tokens":)", ids.size(), model_.max_model_len);
  append_json_integers(out, ids);
  out += R"(,"token_strs":)";
  if (!strings) return out + "null}";
  for (std::size_t i = 0; i < ids.size(); ++i) {
    out += i == 0 ? '[' : ',';
    append_json_string(out, tokenizer_->id_to_token(ids[i]).value_or(""));
  }
  return out + (ids.empty() ? "[]}" : "]}");
}

api_result<std::string> text_front::detokenize(std::string_view body) const {
  TROUPE_TRY(root, read_body(body));
  const json* const tokens = field_reader(root).find("tokens");
  if (tokens == nullptr) return refuse("tokens", "is missing", "missing_parameter");
  if (!tokens->is_array()) {
    return refuse("tokens", "expected a list of token ids, got " + shown(*tokens), "invalid_type");
  }
  TROUPE_TRY(ids, read_ids(*tokens, "tokens"));
  if (tokenizer_ == nullptr) {
    return refuse("tokens", "this model has no tokenizer", "unsupported_parameter");
  }
  // As vLLM: everything that is in the ids is in the text.
  TROUPE_TRY(text, tokenizer_->decode(ids, {.skip_special_tokens = false}));
  std::string out = R"({"prompt":)";
  append_json_string(out, text);
  return out + "}";
}

}  // namespace troupe::serving
