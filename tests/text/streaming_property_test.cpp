// Random texts, bytes and ids: streaming equals decoding as a whole, and encoding loses nothing.
#include <array>
#include <random>
#include <thread>

#include "models/text/detokenizer.hpp"
#include "models/text/tokenizer.hpp"
#include "tests/text/golden_files.hpp"

namespace troupe::text {
namespace {

using ids = std::vector<std::int32_t>;

std::string utf8(std::uint32_t code) {
  std::string out;
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 63));
    out += static_cast<char>(0x80 | (code & 63));
  } else {
    out += static_cast<char>(0xf0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 63));
    out += static_cast<char>(0x80 | ((code >> 6) & 63));
    out += static_cast<char>(0x80 | (code & 63));
  }
  return out;
}

std::string random_text(std::mt19937& chance) {
  static constexpr std::array<std::uint32_t, 10> starts = {0x20,   0x61,    0xc0,   0x300, 0x400,
                                                           0x4e00, 0x1f600, 0x200d, 0x900, 0x0};
  std::string text;
  for (auto i = chance() % 60; i > 0; --i) {
    text += utf8(starts[chance() % starts.size()] + static_cast<std::uint32_t>(chance() % 40));
  }
  return text;
}

std::string streamed(const tokenizer& tokens, const ids& list, bool skip) {
  auto stream = detokenizer::make(tokens, {.skip_special_tokens = skip}).value();
  std::string text;
  for (const std::int32_t id : list) {
    text += stream.push(id).value();
  }
  return text + stream.finish().value();
}

class Streaming : public testing::TestWithParam<std::string> {
 protected:
  tokenizer open() const {
    return tokenizer::open(golden_folder() / "tokenizers" / GetParam()).value();
  }
};

TEST_P(Streaming, EqualsWholeDecodeForRandomTexts) {
  const tokenizer tokens = open();
  for (std::uint32_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 chance(seed);
    const ids list = tokens.encode(random_text(chance) + "a", {}).value();
    for (const bool skip : {true, false}) {
      EXPECT_EQ(streamed(tokens, list, skip),
                tokens.decode(list, {.skip_special_tokens = skip}).value());
    }
  }
}

TEST_P(Streaming, EqualsWholeDecodeForRandomIds) {
  const tokenizer tokens = open();
  const std::int32_t letter = tokens.encode("a", {.add_special_tokens = false}).value().front();
  for (std::uint32_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 chance(seed);
    ids list = {letter};
    // The low ids: bytes, letters and special tokens; often malformed together.
    const int range = chance() % 2 == 0 ? 300 : tokens.token_count() + 5;
    for (auto i = chance() % 40; i > 0; --i) {
      list.push_back(static_cast<std::int32_t>(chance() % static_cast<std::uint32_t>(range)));
    }
    for (const bool skip : {true, false}) {
      EXPECT_EQ(streamed(tokens, list, skip),
                tokens.decode(list, {.skip_special_tokens = skip}).value());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Streaming,
                         testing::ValuesIn(folders_in(golden_folder() / "tokenizers")),
                         [](const auto& kind) { return kind.param; });

TEST(ByteLevel, DecodesBackToTheText) {
  const tokenizer tokens = tokenizer::open(golden_folder() / "tokenizers/gpt2").value();
  for (std::uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 chance(seed);
    const std::string text = random_text(chance);
    EXPECT_EQ(tokens.decode(tokens.encode(text, {}).value(), {}).value(), text);
  }
}

TEST(Streaming, SendsTextAtOnce) {
  const tokenizer tokens = tokenizer::open(golden_folder() / "tokenizers/gpt2").value();
  auto stream = detokenizer::make(tokens, {}).value();
  EXPECT_EQ(stream.push(tokens.encode("A", {}).value().front()).value(), "A");
  const ids smile = tokens.encode("\xf0\x9f\xa6\x8a", {}).value();
  ASSERT_GE(smile.size(), 2u);
  for (std::size_t i = 0; i + 1 < smile.size(); ++i) {
    EXPECT_EQ(stream.push(smile[i]).value(), "");
  }
  EXPECT_EQ(stream.push(smile.back()).value(), "\xf0\x9f\xa6\x8a");
  EXPECT_EQ(stream.finish().value(), "");
}

TEST(Streaming, OutlivesItsTokenizer) {
  auto tokens = tokenizer::open(golden_folder() / "tokenizers/gpt2");
  const ids list = tokens->encode("Hello world", {}).value();
  auto stream = detokenizer::make(*tokens, {}).value();
  tokens = base::fail(base::error_code::not_found, "test", "gone");
  std::string text;
  for (const std::int32_t id : list) {
    text += stream.push(id).value();
  }
  EXPECT_EQ(text + stream.finish().value(), "Hello world");
}

TEST(Tokenizer, ServesManyThreads) {
  const tokenizer tokens = tokenizer::open(golden_folder() / "tokenizers/qwen").value();
  const ids expected = tokens.encode("<|im_start|>user\nHi", {.parse_special = false}).value();
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const auto found = tokens.encode("<|im_start|>user\nHi", {.parse_special = false});
        wrong[t] += found.value() == expected ? 0 : 1;
        wrong[t] += tokens.decode(expected, {}).has_value() ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace troupe::text
