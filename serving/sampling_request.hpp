// The parameters that chat and text completions share: how to draw, when to stop, what to send.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schemas/sequence_log.hpp"
#include "serving/openai_server.hpp"
#include "serving/request_json.hpp"

namespace troupe::serving {

enum class endpoint : std::uint8_t { chat, completion };

struct sampling_request {
  schemas::sampling_params params;  // seed and max_tokens are filled in at admission
  std::optional<std::uint64_t> seed;
  std::optional<std::int64_t> max_tokens;
  std::string max_tokens_param = "max_tokens";  // the name the request used
  std::uint32_t choices = 1;                    // computed: n, or best_of
  std::uint32_t returned = 1;                   // n: the best of them
  std::vector<std::string> stop;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // usage in every chunk
  bool skip_special_tokens = true;
  bool return_token_ids = false;
  bool echo = false;                   // text completions: the prompt comes before the answer
  bool prompt_logprobs_field = false;  // vLLM's; OpenAI's echo has the prompt's among the others
  std::string cache_salt;              // only requests with the same share cached beginnings

  [[nodiscard]] bool logprobs() const noexcept { return params.logprobs >= 0; }
};

// Errors: 400 naming the parameter: wrong type, out of range, or something known that this server
// cannot do yet (refuse_unsupported). Fields that nobody knows are ignored, as vLLM does.
[[nodiscard]] api_result<sampling_request> read_sampling(const json& body, endpoint at,
                                                         const served_model& model,
                                                         const serving_limits& limits);

}  // namespace troupe::serving
