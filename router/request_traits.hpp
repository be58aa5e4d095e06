// What the choice of a gang looks at in a request: read from the JSON of its body in one pass,
// without building it. A body that is no JSON has no traits and goes to any gang, which says so.
//
//   const request_traits traits = read_traits(request.body, request.header("x-session-id"), {});
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::router {

struct traits_limits {
  // Of the body, what is read: larger ones are known by their beginning.
  std::size_t read_bytes_max = std::size_t{256} << 10;
  std::size_t prefix_bytes_max = 4096;       // of the text that the affinity of a chat is made of
  std::size_t text_prefix_bytes_max = 512;   // of a prompt that is one text, which grows at its end
  std::int64_t output_tokens_assumed = 256;  // of a request that sets no max_tokens
};

struct request_traits {
  std::string model;  // empty: not told
  bool stream = false;
  // Estimates. Units: tokens. A token of a text is taken to be four bytes.
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
  // Requests with equal ones want the same gang, where their beginnings are in its prefix cache: of
  // the session (header x-session-id, prompt_cache_key, user), else of the prompt up to the end of
  // the first user's message. None: too little to tell.
  std::optional<std::uint64_t> affinity = {};

  [[nodiscard]] std::int64_t tokens() const noexcept { return prompt_tokens + output_tokens; }
};

[[nodiscard]] request_traits read_traits(std::string_view body, std::string_view session,
                                         const traits_limits& limits);

// 64 bits of a text, the same in every process (FNV-1a with a finaliser).
[[nodiscard]] std::uint64_t hash_of(std::string_view text) noexcept;

}  // namespace troupe::router
