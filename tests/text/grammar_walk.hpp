// Walks through grammars: what a model that draws any allowed token could write.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/grammar.hpp"
#include "models/text/tokenizer.hpp"
#include "tests/text/golden_files.hpp"

namespace troupe::text {

using kind = schemas::output_grammar::kind;
using ids = std::vector<std::int32_t>;
using words = std::vector<std::uint32_t>;

inline bool has(const words& mask, std::int32_t id) {
  return ((mask[static_cast<std::size_t>(id) / 32] >> (id % 32)) & 1U) != 0;
}

inline ids allowed_of(const words& mask) {
  ids out;
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(mask.size() * 32); ++id) {
    if (has(mask, id)) out.push_back(id);
  }
  return out;
}

struct walk_tokenizer {
  std::string name;
  std::filesystem::path folder;
  std::vector<std::string> ends;
};

inline walk_tokenizer golden(std::string name, std::vector<std::string> ends) {
  return {name, golden_folder() / "tokenizers" / name, std::move(ends)};
}
// Byte level with a model of 2,560 tokens, small byte level, SentencePiece with byte tokens.
inline walk_tokenizer demo_tokenizer() {
  return {"demo",
          std::filesystem::path(TROUPE_SOURCE_DIR) / "models/demo/files",
          {"<|im_end|>", "<|endoftext|>"}};
}
inline walk_tokenizer qwen_tokenizer() { return golden("qwen", {"<|im_end|>", "<|endoftext|>"}); }
inline std::vector<walk_tokenizer> walk_tokenizers() {
  return {demo_tokenizer(), qwen_tokenizer(), golden("llama2", {"</s>"}),
          golden("gemma", {"</s>"})};
}

// A tokenizer and its factory; the model has more ids than the tokenizer has tokens.
struct grammar_world {
  explicit grammar_world(const walk_tokenizer& of)
      : tokens(tokenizer::open(of.folder).value()),
        vocab_size(tokens.token_count() + 70),
        ends(ids_of(tokens, of.ends)),
        factory(grammar_factory::make(tokens, {.eos_token_ids = ends, .vocab_size = vocab_size})
                    .value()) {}

  static ids ids_of(const tokenizer& tokens, const std::vector<std::string>& names) {
    ids out;
    for (const std::string& name : names) out.push_back(tokens.token_to_id(name).value());
    return out;
  }

  [[nodiscard]] grammar compile(kind of, const std::string& text) const {
    auto made = factory.compile({of, text});
    EXPECT_TRUE(made.has_value()) << text << ": " << made.error().message;
    return std::move(made).value();
  }

  // The mask, and what holds for each: no special token, no id without a token, an end exactly
  // where the text may end.
  [[nodiscard]] words mask(grammar_state& state) const {
    words out(mask_words(vocab_size), 0xffffffffU);
    const auto done = state.mask(out);
    EXPECT_TRUE(done.has_value()) << done.error().message;
    for (const std::int32_t id : allowed_of(out)) {
      const bool end = std::find(ends.begin(), ends.end(), id) != ends.end();
      EXPECT_TRUE(end || (id < tokens.token_count() && !tokens.is_special(id))) << id;
      EXPECT_TRUE(!end || state.may_stop()) << id;
      EXPECT_TRUE(end || !state.finished()) << id;
    }
    for (const std::int32_t id : ends) EXPECT_EQ(has(out, id), state.may_stop());
    return out;
  }

  // What the model spells with these tokens, without what a decoder strips at the edges.
  [[nodiscard]] std::string text(const ids& emitted) const {
    // A token before them takes what is stripped at the beginning.
    ids all = tokens.encode("x", {.add_special_tokens = false}).value();
    const std::string before = tokens.decode(all, {}).value();
    all.insert(all.end(), emitted.begin(), emitted.end());
    return tokens.decode(all, {.skip_special_tokens = true}).value().substr(before.size());
  }

  [[nodiscard]] std::optional<std::int32_t> closing(const ids& allowed) const {
    for (const char byte : std::string_view("\"}]):0e")) {
      auto id = tokens.token_to_id(std::string(1, byte));
      if (!id) id = tokens.token_to_id(fmt::format("<0x{:02X}>", byte));
      if (id && std::find(allowed.begin(), allowed.end(), *id) != allowed.end()) return id;
    }
    return std::nullopt;
  }

  // Draws tokens until the end is drawn, or must be; after `length` tokens it closes what is open.
  [[nodiscard]] ids walk(grammar_state& state, std::mt19937& chance, std::size_t length) const {
    ids emitted;
    while (emitted.size() < length + 2000) {
      const ids allowed = allowed_of(mask(state));
      if (allowed.empty()) break;
      const bool late = emitted.size() >= length;
      if (state.finished() || (state.may_stop() && (late || chance() % 8 == 0))) {
        EXPECT_TRUE(state.accept(ends[chance() % ends.size()]).has_value());
        EXPECT_TRUE(state.finished());
        return emitted;
      }
      ids choices = allowed;
      std::erase_if(choices, [&](std::int32_t id) {
        return std::find(ends.begin(), ends.end(), id) != ends.end();
      });
      const auto shut = late ? closing(choices) : std::nullopt;
      const std::int32_t id = shut ? *shut : choices[late ? 0 : chance() % choices.size()];
      const auto taken = state.accept(id);
      EXPECT_TRUE(taken.has_value()) << id << ": " << taken.error().message;
      emitted.push_back(id);
    }
    ADD_FAILURE() << "no end after " << emitted.size()
                  << " tokens: " << text(emitted).substr(0, 300);
    return emitted;
  }

  tokenizer tokens;
  std::int32_t vocab_size;
  ids ends;
  grammar_factory factory;
};

}  // namespace troupe::text
