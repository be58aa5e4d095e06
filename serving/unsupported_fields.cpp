#include "serving/unsupported_fields.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "serving/sampling_request.hpp"

namespace troupe::serving {
namespace {

enum class where : std::uint8_t { both, chat, completion };

struct unsupported_field {
  const char* name;
  where at;
  std::string_view neutral;  // JSON list of the values that ask for nothing; null always does
};

constexpr std::string_view nothing = "[]";
constexpr std::string_view zero = "[0]";
constexpr std::string_view one = "[1]";
constexpr std::string_view no = "[false]";
constexpr std::string_view yes = "[true]";

// OpenAI's first, then vLLM's.
constexpr std::array<unsupported_field, 35> fields = {{
    {"best_of", where::chat, one},
    {"echo", where::chat, no},
    {"suffix", where::completion, R"([""])"},
    {"functions", where::chat, "[[]]"},
    {"function_call", where::chat, R"(["none","auto"])"},
    {"modalities", where::chat, R"([["text"]])"},
    {"audio", where::chat, nothing},
    {"store", where::chat, no},
    {"verbosity", where::chat, R"(["medium"])"},
    {"web_search_options", where::chat, nothing},
    {"length_penalty", where::both, one},
    {"use_beam_search", where::both, no},
    {"include_stop_str_in_output", where::both, no},
    {"spaces_between_special_tokens", where::both, yes},
    {"truncate_prompt_tokens", where::both, nothing},
    {"truncation_side", where::both, nothing},
    {"logprob_token_ids", where::both, nothing},
    {"logits_processors", where::both, "[[]]"},
    {"return_tokens_as_token_ids", where::both, no},
    {"guided_decoding_backend", where::both, nothing},
    {"guided_whitespace_pattern", where::both, nothing},
    {"structural_tag", where::both, nothing},
    {"prompt_embeds", where::completion, nothing},
    {"documents", where::chat, "[[]]"},
    {"chat_template", where::chat, nothing},
    {"continue_final_message", where::chat, no},
    {"mm_processor_kwargs", where::both, nothing},
    {"media_io_kwargs", where::both, nothing},
    {"thinking_token_budget", where::chat, nothing},
    {"repetition_detection", where::both, nothing},
    {"kv_transfer_params", where::both, nothing},
    {"ec_transfer_params", where::both, nothing},
    {"vllm_xargs", where::both, nothing},
    {"priority", where::both, zero},
    {"add_special_tokens", where::chat, no},
}};

bool holds(where place, endpoint at) {
  return place == where::both || (place == where::chat) == (at == endpoint::chat);
}

}  // namespace

api_result<void> refuse_unsupported(const json& body, endpoint at) {
  const field_reader reader(body);
  for (const unsupported_field& field : fields) {
    if (!holds(field.at, at)) continue;
    const json* const value = reader.find(field.name);
    if (value == nullptr) continue;
    const json neutral = json::parse(field.neutral);
    if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) continue;
    const std::string instead = neutral.empty()
                                    ? "leave it out"
                                    : fmt::format("leave it out or send {}", neutral[0].dump());
    return refuse(field.name,
                  fmt::format("{} is not supported by this server; {}", shown(*value), instead),
                  "unsupported_parameter");
  }
  return {};
}

}  // namespace troupe::serving
