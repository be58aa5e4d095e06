#include "engine/prefix_chain.hpp"

#include <span>

#include "base/hmac.hpp"

namespace troupe::engine {
namespace {

// With its length before it, so that no two lists of parts read the same.
void append_part(std::string& text, std::string_view part) {
  text += std::to_string(part.size());
  text += ':';
  text += part;
}

base::digest root_of(const prefix_cache_options& options, const sequence_log& log) {
  std::string text;
  append_part(text, log.scope.tenant);
  append_part(text, log.scope.salt);
  append_part(text, options.model);
  if (options.depends_on_length) append_part(text, std::to_string(log.prompt_ids.size()));
  return base::hmac_sha256(options.key, text);
}

}  // namespace

prefix_chain::prefix_chain(const prefix_cache_options& options, const sequence_log& log)
    : root_(root_of(options, log)) {}

block_tokens prefix_chain::tokens_of(const sequence_log& log, std::size_t block) {
  block_tokens tokens{};
  const auto first = static_cast<std::int64_t>(block) * kernels::kv_block_tokens;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = log.token(first + static_cast<std::int64_t>(i));
  }
  return tokens;
}

void prefix_chain::extend(const sequence_log& log, std::int64_t tokens) {
  const auto full = static_cast<std::size_t>(tokens / kernels::kv_block_tokens);
  if (keys_.size() >= full) return;
  base::sha256 hash;
  while (keys_.size() < full) {
    const base::digest& before = keys_.empty() ? root_ : keys_.back();
    const block_tokens of_block = tokens_of(log, keys_.size());
    hash.update(std::as_bytes(std::span(before)));
    hash.update(std::as_bytes(std::span(of_block)));
    keys_.push_back(hash.finish());
  }
}

}  // namespace troupe::engine
