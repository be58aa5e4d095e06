// Every kind of tokenizer against what Hugging Face's packages gave (scripts/goldens_text.py).
#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "models/text/detokenizer.hpp"
#include "models/text/tokenizer.hpp"
#include "tests/text/golden_files.hpp"

namespace troupe::text {
namespace {

using ids = std::vector<std::int32_t>;

class TokenizerGolden : public testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path folder() const { return golden_folder() / "tokenizers" / GetParam(); }

  tokenizer open() const {
    auto opened = tokenizer::open(folder());
    EXPECT_TRUE(opened.has_value()) << opened.error().message;
    return std::move(*opened);
  }
};

std::string hash_of(const ids& tokens) {
  std::uint64_t value = 0xcbf29ce484222325;
  for (const std::int32_t id : tokens) {
    for (int shift = 0; shift < 32; shift += 8) {
      value = (value ^ ((static_cast<std::uint32_t>(id) >> shift) & 0xff)) * 0x100000001b3;
    }
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

TEST_P(TokenizerGolden, EncodesAsHuggingFace) {
  const tokenizer tokens = open();
  std::size_t rows = 0;
  for (const auto& row : read_json(folder() / "encode.json")) {
    const auto text = row["text"].get<std::string>();
    EXPECT_EQ(tokens.encode(text, {}).value(), row["ids"].get<ids>()) << text;
    EXPECT_EQ(tokens.encode(text, {.add_special_tokens = false}).value(), row["plain"].get<ids>())
        << text;
    EXPECT_EQ(tokens.encode(text, {.add_special_tokens = false, .parse_special = false}).value(),
              row["literal"].get<ids>())
        << text;
    ++rows;
  }
  EXPECT_GT(rows, 60u);
}

TEST_P(TokenizerGolden, EncodesLongTextsAsHuggingFace) {
  const tokenizer tokens = open();
  for (const auto& row : read_json(folder() / "encode_long.json")) {
    std::string text;
    for (int i = 0; i < row["repeats"].get<int>(); ++i) {
      text += row["text"].get<std::string>();
    }
    const ids found = tokens.encode(text, {}).value();
    EXPECT_EQ(found.size(), row["count"].get<std::size_t>()) << row["text"];
    EXPECT_EQ(hash_of(found), row["fnv1a"].get<std::string>()) << row["text"];
  }
}

TEST_P(TokenizerGolden, DecodesAsHuggingFace) {
  const tokenizer tokens = open();
  for (const auto& row : read_json(folder() / "decode.json")) {
    const auto list = row["ids"].get<ids>();
    EXPECT_EQ(tokens.decode(list, {.skip_special_tokens = true}).value(),
              row["skip"].get<std::string>())
        << row["ids"];
    EXPECT_EQ(tokens.decode(list, {.skip_special_tokens = false}).value(),
              row["keep"].get<std::string>())
        << row["ids"];
  }
}

// True where `text` is whole characters: no piece may end inside one.
bool is_utf8(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::ignore) ==
         json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

TEST_P(TokenizerGolden, StreamsWhatHuggingFaceDecodesWhole) {
  const tokenizer tokens = open();
  for (const auto& row : read_json(folder() / "decode.json")) {
    for (const bool skip : {true, false}) {
      auto stream = detokenizer::make(tokens, {.skip_special_tokens = skip});
      ASSERT_TRUE(stream.has_value()) << stream.error().message;
      std::string text;
      for (const std::int32_t id : row["ids"].get<ids>()) {
        const std::string piece = stream->push(id).value();
        EXPECT_TRUE(is_utf8(piece)) << row["ids"];
        text += piece;
      }
      text += stream->finish().value();
      EXPECT_EQ(text, row[skip ? "skip" : "keep"].get<std::string>()) << row["ids"];
    }
  }
}

TEST_P(TokenizerGolden, KnowsItsVocabulary) {
  const tokenizer tokens = open();
  const auto golden = read_json(folder() / "vocabulary.json");
  EXPECT_EQ(tokens.token_count(), golden["token_count"].get<std::int32_t>());
  for (const auto& [token, id] : golden["some"].items()) {
    EXPECT_EQ(tokens.token_to_id(token), id.get<std::int32_t>()) << token;
    EXPECT_EQ(tokens.id_to_token(id.get<std::int32_t>()).value(), token);
  }
  ids special;
  for (std::int32_t id = -1; id <= tokens.token_count(); ++id) {
    if (tokens.is_special(id)) {
      special.push_back(id);
    }
  }
  EXPECT_EQ(special, golden["special_ids"].get<ids>());
  EXPECT_EQ(tokens.id_to_token(tokens.token_count()).error().code, base::error_code::out_of_range);
  EXPECT_EQ(tokens.id_to_token(-1).error().code, base::error_code::out_of_range);
  EXPECT_EQ(tokens.token_to_id("no such token"), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerGolden,
                         testing::ValuesIn(folders_in(golden_folder() / "tokenizers")),
                         [](const auto& kind) { return kind.param; });

}  // namespace
}  // namespace troupe::text
