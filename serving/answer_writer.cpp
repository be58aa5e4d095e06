#include "serving/answer_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/sha256.hpp"
#include "serving/json_text.hpp"

namespace troupe::serving {
namespace {

void append_usage_object(std::string& out, token_usage usage) {
  fmt::format_to(std::back_inserter(out),
                 R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},)"
                 R"("prompt_tokens_details":{{"cached_tokens":{}}}}})",
                 usage.prompt_tokens, usage.completion_tokens,
                 usage.prompt_tokens + usage.completion_tokens, usage.cached_tokens);
}

void append_finish(std::string& out, const choice_part& part) {
  out += R"(,"finish_reason":)";
  const bool calls = part.ends_in_calls && part.finish == schemas::finish_reason::stop;
  append_json_string_or_null(out, calls         ? "tool_calls"
                                  : part.finish ? schemas::to_string(*part.finish)
                                                : "");
}

std::string text_of(const choice_part& part, answer_piece::kind of) {
  std::string text;
  for (const answer_piece& piece : *part.pieces) {
    if (piece.of == of) text += piece.text;
  }
  return text;
}

void append_token_ids(std::string& out, std::span<const schemas::sampled_token> tokens) {
  out += R"(,"token_ids":[)";
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", tokens[i].token_id);
  }
  out += ']';
}

// `"token":...,"logprob":...,"bytes":[...]`
void append_token(std::string& out, const token_text& token, float logprob) {
  out += R"("token":)";
  append_json_string(out, token.text);
  out += R"(,"logprob":)";
  append_json_logprob(out, logprob);
  out += R"(,"bytes":[)";
  for (std::size_t i = 0; i < token.bytes.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",",
                   static_cast<unsigned>(static_cast<unsigned char>(token.bytes[i])));
  }
  out += ']';
}

std::size_t characters_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

}  // namespace

answer_writer::answer_writer(const answer_identity& identity, const sampling_request& asked,
                             token_texts& tokens)
    : at_(identity.at),
      short_call_ids_(identity.short_call_ids),
      logprobs_(asked.logprobs()),
      token_ids_(asked.return_token_ids),
      include_usage_(asked.include_usage),
      continuous_usage_(asked.continuous_usage),
      tokens_(tokens) {
  append_json_string(id_, identity.id);
  head_ = fmt::format(R"("created":{},"model":)", identity.created.count());
  append_json_string(head_, identity.model);
  head_ += R"(,"system_fingerprint":)";
  append_json_string(head_, identity.system_fingerprint);
}

void answer_writer::append_head(std::string& out, std::string_view object) const {
  out += R"({"id":)";
  out += id_;
  out += R"(,"object":")";
  out += object;
  out += R"(",)";
  out += head_;
  out += R"(,"choices":[)";
}

void answer_writer::append_chunk_end(std::string& out, token_usage usage) const {
  if (continuous_usage_) {
    out += R"(,"usage":)";
    append_usage_object(out, usage);
  } else if (include_usage_) {
    out += R"(,"usage":null)";
  }
  out += "}\n\n";
}

void answer_writer::append_role(std::string& out, std::uint32_t index,
                                const std::vector<std::int32_t>& prompt_ids,
                                token_usage usage) const {
  out += "data: ";
  append_head(out, "chat.completion.chunk");
  fmt::format_to(std::back_inserter(out),
                 R"({{"index":{},"delta":{{"role":"assistant","content":""}},"logprobs":null,)"
                 R"("finish_reason":null}})",
                 index);
  out += ']';
  if (token_ids_ && index == 0) {
    out += R"(,"prompt_token_ids":)";
    append_json_integers(out, prompt_ids);
  }
  append_chunk_end(out, usage);
}

void answer_writer::append_delta(std::string& out, const choice_part& part,
                                 token_usage usage) const {
  out += "data: ";
  append_head(out, at_ == endpoint::chat ? "chat.completion.chunk" : "text_completion");
  append_choice(out, part, true);
  out += ']';
  append_chunk_end(out, usage);
}

void answer_writer::append_usage(std::string& out, token_usage usage) const {
  out += "data: ";
  append_head(out, at_ == endpoint::chat ? "chat.completion.chunk" : "text_completion");
  out += R"(],"usage":)";
  append_usage_object(out, usage);
  out += "}\n\n";
}

std::string answer_writer::whole(std::span<const choice_part> choices, token_usage usage) const {
  std::string out;
  append_head(out, at_ == endpoint::chat ? "chat.completion" : "text_completion");
  for (const choice_part& choice : choices) {
    if (&choice != &choices.front()) out += ',';
    append_choice(out, choice, false);
  }
  out += R"(],"usage":)";
  append_usage_object(out, usage);
  if (at_ == endpoint::chat && token_ids_ && choices.front().prompt_ids != nullptr) {
    out += R"(,"prompt_token_ids":)";
    append_json_integers(out, *choices.front().prompt_ids);
  }
  if (at_ == endpoint::chat) append_prompt_logprobs(out, choices.front());
  out += '}';
  return out;
}

void answer_writer::append_choice(std::string& out, const choice_part& part, bool chunk) const {
  fmt::format_to(std::back_inserter(out), R"({{"index":{},)", part.index);
  if (at_ == endpoint::completion) {
    out += R"("text":)";
    append_json_string(out, part.text);
  } else if (!chunk) {
    out += R"("message":{"role":"assistant","content":)";
    if (part.pieces != nullptr) {
      append_pieces(out, part, false);
    } else {
      append_json_string(out, part.text);
    }
    out += R"(,"refusal":null})";
  } else {
    out += R"("delta":{)";
    if (part.pieces != nullptr) {
      append_pieces(out, part, true);
    } else if (!part.text.empty()) {
      out += R"("content":)";
      append_json_string(out, part.text);
    }
    out += '}';
  }
  append_logprobs(out, part);
  append_finish(out, part);
  if (token_ids_) {
    append_token_ids(out, part.tokens.subspan(part.echoed));
    if (at_ == endpoint::completion && part.prompt_ids != nullptr) {
      out += R"(,"prompt_token_ids":)";
      append_json_integers(out, *part.prompt_ids);
    }
  }
  if (at_ == endpoint::completion) append_prompt_logprobs(out, part);
  out += '}';
}

// vLLM's: of each token but the first an object of token ids, its own among them.
void answer_writer::append_prompt_logprobs(std::string& out, const choice_part& part) const {
  if (part.prompt_logprobs == nullptr) return;
  out += R"(,"prompt_logprobs":[null)";
  const auto append = [&](std::int32_t id, float logprob, std::size_t rank) {
    fmt::format_to(std::back_inserter(out), R"("{}":{{"logprob":)", id);
    append_json_logprob(out, logprob);
    out += rank == 0 ? std::string(R"(,"rank":null)") : fmt::format(R"(,"rank":{})", rank);
    out += R"(,"decoded_token":)";
    append_json_string(out, tokens_.of(id).text);
    out += '}';
  };
  for (std::size_t i = 1; i < part.prompt_logprobs->size(); ++i) {
    const schemas::sampled_token& token = (*part.prompt_logprobs)[i];
    const auto among = std::find_if(token.top.begin(), token.top.end(), [&](const auto& other) {
      return other.token_id == token.token_id;
    });
    const auto place = static_cast<std::size_t>(among - token.top.begin()) + 1;
    out += ",{";
    append(token.token_id, token.logprob, among == token.top.end() ? 0 : place);
    for (std::size_t rank = 1; rank <= token.top.size(); ++rank) {
      const schemas::token_logprob& other = token.top[rank - 1];
      if (other.token_id == token.token_id) continue;
      out += ',';
      append(other.token_id, other.logprob, rank);
    }
    out += '}';
  }
  out += ']';
}

void answer_writer::append_pieces(std::string& out, const choice_part& part, bool chunk) const {
  const std::string content = text_of(part, answer_piece::kind::content);
  const std::string reasoning = text_of(part, answer_piece::kind::reasoning);
  const bool calls = std::any_of(part.pieces->begin(), part.pieces->end(), [](const auto& piece) {
    return piece.of == answer_piece::kind::call || piece.of == answer_piece::kind::arguments;
  });
  std::string_view comma = ",";
  if (!chunk) {
    if (content.empty() && calls) {
      out += "null";
    } else {
      append_json_string(out, content);
    }
  } else {
    comma = "";
    if (!content.empty()) {
      out += R"("content":)";
      append_json_string(out, content);
      comma = ",";
    }
  }
  if (!reasoning.empty()) {
    fmt::format_to(std::back_inserter(out), R"({}"reasoning_content":)", comma);
    append_json_string(out, reasoning);
    comma = ",";
  }
  if (!calls) return;
  fmt::format_to(std::back_inserter(out), R"({}"tool_calls":[)", comma);
  append_calls(out, part, chunk);
  out += ']';
}

void answer_writer::append_calls(std::string& out, const choice_part& part, bool chunk) const {
  const answer_pieces& pieces = *part.pieces;
  bool first = true;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const bool begins = pieces[i].of == answer_piece::kind::call;
    if (!begins && pieces[i].of != answer_piece::kind::arguments) continue;
    out += first ? "{" : ",{";
    first = false;
    const std::size_t call = pieces[i].call;
    if (chunk) fmt::format_to(std::back_inserter(out), R"("index":{},)", call);
    if (begins) {
      fmt::format_to(std::back_inserter(out), R"("id":"{}","type":"function",)",
                     call_id(part.index, call));
    }
    out += R"("function":{)";
    if (begins) {
      out += R"("name":)";
      append_json_string(out, pieces[i].text);
      out += ',';
    }
    // A call's arguments follow it.
    std::string arguments = begins ? std::string() : pieces[i].text;
    for (; i + 1 < pieces.size() && pieces[i + 1].call == call &&
           pieces[i + 1].of == answer_piece::kind::arguments;
         ++i) {
      arguments += pieces[i + 1].text;
    }
    out += R"("arguments":)";
    append_json_string(out, arguments);
    out += "}}";
  }
}

// Unlike any other: the answer's own id is drawn.
std::string answer_writer::call_id(std::uint32_t choice, std::size_t call) const {
  const std::string hash =
      base::to_hex(base::sha256_of(fmt::format("{}/{}/{}", id_, choice, call)));
  return short_call_ids_ ? hash.substr(0, 9) : "call_" + hash.substr(0, 24);
}

void answer_writer::append_logprobs(std::string& out, const choice_part& part) const {
  out += R"(,"logprobs":)";
  if (!logprobs_ || part.tokens.empty()) {
    out += "null";
  } else if (at_ == endpoint::chat) {
    append_chat_logprobs(out, part);
  } else {
    append_text_logprobs(out, part);
  }
}

void answer_writer::append_chat_logprobs(std::string& out, const choice_part& part) const {
  out += R"({"content":[)";
  for (const schemas::sampled_token& token : part.tokens) {
    if (&token != part.tokens.data()) out += ',';
    out += '{';
    append_token(out, tokens_.of(token.token_id), token.logprob);
    out += R"(,"top_logprobs":[)";
    for (const schemas::token_logprob& other : token.top) {
      out += &other == token.top.data() ? "{" : ",{";
      append_token(out, tokens_.of(other.token_id), other.logprob);
      out += '}';
    }
    out += "]}";
  }
  out += R"(],"refusal":null})";
}

void answer_writer::append_text_logprobs(std::string& out, const choice_part& part) const {
  std::string offsets;
  std::string values;
  std::string names;
  std::string tops;
  std::size_t offset = part.text_offset;
  for (const schemas::sampled_token& token : part.tokens) {
    const std::string_view comma = &token == part.tokens.data() ? "" : ",";
    const token_text& own = tokens_.of(token.token_id);
    fmt::format_to(std::back_inserter(offsets), "{}{}", comma, offset);
    offset += characters_of(own.bytes);
    if (part.echoed > 0 && &token == part.tokens.data()) {  // nothing comes before it
      values += "null";
      append_json_string(names, own.text);
      tops += "null";
      continue;
    }
    values += comma;
    append_json_logprob(values, token.logprob);
    names += comma;
    append_json_string(names, own.text);
    tops += comma;
    tops += '{';
    // The token itself is always among them; of tokens that look alike the likelier stays.
    std::vector<std::string_view> written = {own.text};
    append_json_string(tops, own.text);
    tops += ':';
    append_json_logprob(tops, token.logprob);
    for (const schemas::token_logprob& other : token.top) {
      const std::string& text = tokens_.of(other.token_id).text;
      if (std::find(written.begin(), written.end(), text) != written.end()) continue;
      written.push_back(text);
      tops += ',';
      append_json_string(tops, text);
      tops += ':';
      append_json_logprob(tops, other.logprob);
    }
    tops += '}';
  }
  fmt::format_to(
      std::back_inserter(out),
      R"({{"text_offset":[{}],"token_logprobs":[{}],"tokens":[{}],"top_logprobs":[{}]}})", offsets,
      values, names, tops);
}

std::size_t answer_writer::characters(std::span<const schemas::sampled_token> tokens) const {
  std::size_t sum = 0;
  for (const schemas::sampled_token& token : tokens) {
    sum += characters_of(tokens_.of(token.token_id).bytes);
  }
  return sum;
}

}  // namespace troupe::serving
