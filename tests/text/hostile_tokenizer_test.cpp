// Tokenizer files and texts that nobody honest writes: refused with a reason, never a crash.
#include <cstdint>
#include <random>

#include "models/text/detokenizer.hpp"
#include "models/text/tokenizer.hpp"
#include "tests/text/golden_files.hpp"

namespace troupe::text {
namespace {

base::result<tokenizer> from(const std::string& tokenizer_json,
                             std::optional<std::string> config = std::nullopt) {
  return tokenizer::from_json({.tokenizer_json = tokenizer_json, .tokenizer_config_json = config});
}

// Expects a refusal whose one line holds `part`.
void expect_refused(const base::result<tokenizer>& opened, base::error_code code,
                    const std::string& part) {
  ASSERT_FALSE(opened.has_value()) << part;
  EXPECT_EQ(opened.error().code, code) << opened.error().message;
  EXPECT_NE(opened.error().message.find(part), std::string::npos) << opened.error().message;
  EXPECT_EQ(opened.error().message.find('\n'), std::string::npos) << opened.error().message;
}

std::string golden_json(const std::string& kind) {
  return read_text(golden_folder() / "tokenizers" / kind / "tokenizer.json");
}

TEST(TokenizerFiles, SaysWhatItLookedFor) {
  const auto opened = tokenizer::open("no/such/folder");
  expect_refused(opened, base::error_code::not_found, "no/such/folder/tokenizer.json");
  expect_refused(opened, base::error_code::not_found, "pass token ids");
}

TEST(TokenizerFiles, RefusesWordPiece) {
  const std::string named =
      R"({"model":{"type":"WordPiece","vocab":{"[UNK]":0,"a":1},"unk_token":"[UNK]",)"
      R"("continuing_subword_prefix":"##","max_input_chars_per_word":100}})";
  expect_refused(from(named), base::error_code::invalid_argument, "WordPiece");
  const std::string unnamed =
      R"({"model":{"vocab":{"[UNK]":0,"a":1},"unk_token":"[UNK]",)"
      R"("continuing_subword_prefix":"##","max_input_chars_per_word":100}})";
  expect_refused(from(unnamed), base::error_code::invalid_argument, "WordPiece");
}

TEST(TokenizerFiles, RefusesUnknownModels) {
  expect_refused(from(R"({"model":{"type":"Oracle","vocab":{"a":0}}})"),
                 base::error_code::invalid_argument, "Oracle");
}

TEST(TokenizerFiles, RefusesMalformedJson) {
  for (const char* text : {"", "{", "[]", "null", "{}", "{\"model\":7}", "{\"model\":{}} x",
                           "\xff\xfe", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}"}) {
    expect_refused(from(text), base::error_code::invalid_argument, "tokenizer.json");
  }
}

TEST(TokenizerFiles, RefusesDeepNesting) {
  const std::string deep = "{\"model\":" + std::string(100'000, '[');
  expect_refused(from(deep), base::error_code::invalid_argument, "nests deeper than 64");
}

TEST(TokenizerFiles, RefusesFilesAbove64MiB) {
  const std::string big = "{\"x\":\"" + std::string((std::size_t{64} << 20) + 1, 'x') + "\"}";
  expect_refused(from(big), base::error_code::resource_exhausted, "67108864");
}

TEST(TokenizerFiles, RefusesVocabulariesAboveTheBound) {
  std::string json = R"({"model":{"type":"WordLevel","unk_token":"0","vocab":{"0":0)";
  for (int i = 1; i <= 1 << 20; ++i) {
    json += ",\"" + std::to_string(i) + "\":" + std::to_string(i);
  }
  expect_refused(from(json + "}}}"), base::error_code::resource_exhausted, "1048577 tokens");
}

TEST(TokenizerFiles, RefusesIdsThatAreNoRows) {
  expect_refused(from(R"({"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":4000000000}}})"),
                 base::error_code::invalid_argument, "4000000000");
}

TEST(TokenizerFiles, RefusesAMalformedConfig) {
  const std::string json = golden_json("gpt2");
  for (const char* config : {"[]", "{", R"({"bos_token": 7})", R"({"bos_token": {"x": 1}})",
                             R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
                             R"({"added_tokens_decoder": {"1": 7}})"}) {
    expect_refused(from(json, config), base::error_code::invalid_argument, "tokenizer_config.json");
  }
}

TEST(TokenizerTexts, NamesTheByteOfMalformedUtf8) {
  const auto tokens = from(golden_json("gpt2")).value();
  const std::vector<std::pair<std::string, std::string>> texts = {{"ab\xff", "byte 2"},
                                                                  {"\x80", "byte 0"},
                                                                  {"a\xe2\x82", "byte 1"},
                                                                  {"\xed\xa0\x80", "byte 0"}};
  for (const auto& [text, where] : texts) {
    const auto ids = tokens.encode(text, {});
    ASSERT_FALSE(ids.has_value());
    EXPECT_EQ(ids.error().code, base::error_code::invalid_argument);
    EXPECT_NE(ids.error().message.find(where), std::string::npos) << ids.error().message;
  }
}

TEST(TokenizerTexts, RefusesTextsAbove16MiB) {
  const auto tokens = from(golden_json("gpt2")).value();
  const auto ids = tokens.encode(std::string((std::size_t{16} << 20) + 1, ' '), {});
  ASSERT_FALSE(ids.has_value());
  EXPECT_EQ(ids.error().code, base::error_code::resource_exhausted);
}

TEST(TokenizerTexts, DropoutNeverMakesEncodingRandom) {
  auto json = read_json(golden_folder() / "tokenizers/gpt2/tokenizer.json");
  json["model"]["dropout"] = 0.9;
  const auto random = from(json.dump()).value();
  const auto plain = from(golden_json("gpt2")).value();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(random.encode("Hello the world again", {}).value(),
              plain.encode("Hello the world again", {}).value());
  }
}

// Half-broken files: whatever opens must also encode, decode and stream without a crash.
TEST(TokenizerFiles, SurviveMutation) {
  const std::vector<std::string> kinds = folders_in(golden_folder() / "tokenizers");
  int opened_count = 0;
  for (std::uint32_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 chance(seed);
    std::string json = golden_json(kinds[seed % kinds.size()]);
    const std::size_t tail = json.find("\"vocab\"");
    const int edits = 1 + static_cast<int>(chance() % 3);
    for (int i = 0; i < edits; ++i) {
      // Mostly the part before the vocabulary: normaliser, splitter, decoder, special tokens.
      const std::size_t at = chance() % (chance() % 8 == 0 ? json.size() : tail);
      switch (chance() % 4) {
        case 0:
          json[at] = static_cast<char>(chance());
          break;
        case 1:
          json.erase(at, chance() % 8);
          break;
        case 2:
          json.insert(at, json.substr(chance() % tail, chance() % 40));
          break;
        default:
          json[at] = "0123456789\"{}[],:.-ntf"[chance() % 22];
          break;
      }
    }
    const auto tokens = from(json);
    if (!tokens) {
      EXPECT_EQ(tokens.error().message.find('\n'), std::string::npos);
      continue;
    }
    ++opened_count;
    const auto ids = tokens->encode("Hello <s> wörld 😀 [MASK] 123\n  x", {});
    auto stream = detokenizer::make(*tokens, {.skip_special_tokens = false});
    if (ids && stream) {
      (void)tokens->decode(*ids, {});
      for (const std::int32_t id : *ids) {
        (void)stream->push(id);
      }
      (void)stream->finish();
    }
  }
  EXPECT_GT(opened_count, 20);
}

}  // namespace
}  // namespace troupe::text
