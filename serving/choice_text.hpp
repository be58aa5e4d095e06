// The text of one choice as its tokens come: whole characters only, and nothing that may still turn
// out to be a stop string.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "models/text/detokenizer.hpp"
#include "models/text/stop_matcher.hpp"

namespace troupe::serving {

class choice_text {
 public:
  // `tokenizer` nullptr: the text stays empty. What the first `min_tokens` tokens say is not
  // searched for stop strings. `markers`: special tokens that are in the text all the same.
  // Errors: unimplemented (the tokenizer's decoder cannot stream).
  [[nodiscard]] static base::result<choice_text> make(
      const text::tokenizer* tokenizer, bool skip_special_tokens, std::vector<std::string> stop,
      std::int64_t min_tokens = 0, const std::vector<std::int32_t>& markers = {});

  // Text that is certain now. Errors: internal.
  [[nodiscard]] base::result<std::string> push(std::int32_t token_id);
  // The rest, once no token follows.
  [[nodiscard]] base::result<std::string> finish();
  // A stop string was found; it and what follows it are not in the text.
  [[nodiscard]] bool stopped() const noexcept { return stops_.stopped(); }

 private:
  choice_text(std::optional<text::detokenizer> stream, std::vector<std::string> stop,
              std::int64_t min_tokens)
      : stream_(std::move(stream)), stops_(std::move(stop)), unsearched_(min_tokens) {}

  struct marker {
    std::int32_t token_id = 0;
    std::string text;
  };

  std::optional<text::detokenizer> stream_;
  std::vector<marker> markers_;
  text::stop_matcher stops_;
  std::int64_t unsearched_;  // tokens still to come whose text is not searched
};

}  // namespace troupe::serving
