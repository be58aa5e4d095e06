// Grammars over real tokenizers of both alphabets: whatever is drawn from the masks is a text of
// the grammar, and a text of the grammar is always allowed.
#include "models/text/grammar.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <regex>
#include <set>

#include "tests/text/golden_files.hpp"

namespace troupe::text {
namespace {

using schemas::output_grammar;
using kind = output_grammar::kind;
using ids = std::vector<std::int32_t>;

// A tokenizer of the golden files with the grammars over it. The vocabulary is larger than the
// tokenizer's, as models' are.
class world {
 public:
  explicit world(const std::string& name)
      : tokenizer_(must(tokenizer::open(golden_folder() / "tokenizers" / name))) {
    for (std::int32_t id = 0; id < tokens(); ++id) {
      if (tokenizer_.is_special(id)) end_ = id;
    }
    EXPECT_GE(end_, 0) << name << " has no special token";
    grammars_ = must(
        grammar_library::make(tokenizer_, {.eos_token_ids = {end_}, .vocab_size = tokens() + 70}));
  }

  template <class T>
  static T must(base::result<T> result) {
    if (!result) throw std::runtime_error(result.error().message);
    return *std::move(result);
  }

  [[nodiscard]] std::int32_t tokens() const {
    return static_cast<std::int32_t>(tokenizer_.token_count());
  }
  [[nodiscard]] std::int32_t end() const { return end_; }
  [[nodiscard]] grammar_library& grammars() { return *grammars_; }
  [[nodiscard]] ids encode(const std::string& text) const {
    return must(tokenizer_.encode(text, {.add_special_tokens = false, .parse_special = false}));
  }
  [[nodiscard]] std::string decode(const ids& of) const {
    return must(tokenizer_.decode(of, {.skip_special_tokens = false}));
  }

  [[nodiscard]] ids allowed(grammar_state& state) const {
    std::vector<std::uint32_t> words(static_cast<std::size_t>((tokens() + 70 + 31) / 32), ~0U);
    const auto masked = state.mask(words);
    EXPECT_TRUE(masked) << masked.error().message;
    ids out;
    for (std::size_t i = 0; i < words.size() * 32; ++i) {
      if ((words[i / 32] >> (i % 32) & 1U) != 0) out.push_back(static_cast<std::int32_t>(i));
    }
    return out;
  }

  // Draws from the masks; an end is taken where it is allowed and the text is long enough.
  [[nodiscard]] std::optional<std::string> walk(const output_grammar& grammar, std::mt19937& random,
                                                std::size_t most) {
    grammar_state state = must(grammars_->start(grammar));
    ids text;
    while (text.size() < most) {
      const ids may = allowed(state);
      EXPECT_FALSE(may.empty()) << "after " << decode(text);
      if (may.empty()) return std::nullopt;
      const bool ends = std::find(may.begin(), may.end(), end_) != may.end();
      if (ends && (may.size() == 1 || random() % 2 == 0)) return decode(text);
      const std::int32_t next = may[random() % may.size()];
      if (next == end_) continue;
      EXPECT_LT(next, tokens()) << "an id without a token";
      const auto taken = state.accept(next);
      EXPECT_TRUE(taken) << taken.error().message;
      text.push_back(next);
    }
    return std::nullopt;  // strings may be as long as they like
  }

  // Whether every token of the text, and then the end, is allowed.
  [[nodiscard]] bool takes(const output_grammar& grammar, const std::string& text) {
    grammar_state state = must(grammars_->start(grammar));
    for (const std::int32_t id : encode(text)) {
      const ids may = allowed(state);
      if (std::find(may.begin(), may.end(), id) == may.end()) return false;
      EXPECT_TRUE(state.accept(id));
    }
    const ids may = allowed(state);
    return std::find(may.begin(), may.end(), end_) != may.end();
  }

  [[nodiscard]] std::string refusal(const output_grammar& grammar) {
    const auto checked = grammars_->check(grammar);
    if (checked) return "accepted";
    EXPECT_EQ(checked.error().code, base::error_code::invalid_argument);
    EXPECT_EQ(checked.error().message.find('\n'), std::string::npos);
    return checked.error().message;
  }

 private:
  tokenizer tokenizer_;
  std::int32_t end_ = -1;
  std::unique_ptr<grammar_library> grammars_;
};

output_grammar schema(const char* text) { return {kind::json_schema, text}; }

const char* const person = R"({"type":"object","properties":{"name":{"type":"string","maxLength":8},
  "age":{"type":"integer","minimum":0,"maximum":120},"tags":{"type":"array","maxItems":2,
  "items":{"enum":["a","bb"]}}},"required":["name","age"],"additionalProperties":false})";

class Grammar : public testing::TestWithParam<std::string> {
 protected:
  world world_{GetParam()};
};

TEST_P(Grammar, WhatIsDrawnFromASchemasMasksIsAnObjectOfTheSchema) {
  int done = 0;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    const auto text = world_.walk(schema(person), random, 400);
    if (!text) continue;
    ++done;
    const auto value = nlohmann::json::parse(*text, nullptr, false);
    ASSERT_TRUE(value.is_object()) << *text;
    EXPECT_TRUE(value.contains("name") && value["name"].is_string()) << *text;
    EXPECT_TRUE(value["age"].is_number_integer() && value["age"] >= 0 && value["age"] <= 120);
    for (const auto& [key, of] : value.items()) {
      EXPECT_TRUE((std::set<std::string>{"name", "age", "tags"}.contains(key))) << *text;
    }
  }
  EXPECT_GE(done, 10) << "the walks hardly ever ended";
}

TEST_P(Grammar, TextsOfASchemaAreAllowedAndOthersAreNot) {
  EXPECT_TRUE(world_.takes(schema(person), R"({"name":"Ann","age":7})"));
  EXPECT_TRUE(world_.takes(schema(person), "{\n  \"name\": \"Ann\",\n  \"age\": 120\n}"));
  EXPECT_FALSE(world_.takes(schema(person), R"({"name":"Ann","age":121})"));
  EXPECT_FALSE(world_.takes(schema(person), R"({"name":"Ann"})"));
  EXPECT_FALSE(world_.takes(schema(person), R"({"name":"Ann","age":7,"more":1})"));
  EXPECT_TRUE(world_.takes({kind::json_object, ""}, R"({"any":[1,{"thing":null}]})"));
  EXPECT_FALSE(world_.takes({kind::json_object, ""}, "[1]"));
}

TEST_P(Grammar, ARegexIsTheWholeText) {
  const output_grammar date{kind::regex, "[0-9]{4}-(0[1-9]|1[0-2])"};
  EXPECT_TRUE(world_.takes(date, "2026-11"));
  EXPECT_FALSE(world_.takes(date, "2026-13"));
  EXPECT_FALSE(world_.takes(date, "2026-1"));
  for (unsigned seed = 1; seed <= 10; ++seed) {
    std::mt19937 random(seed);
    const auto text = world_.walk(date, random, 40);
    ASSERT_TRUE(text);
    EXPECT_TRUE(std::regex_match(*text, std::regex("[0-9]{4}-(0[1-9]|1[0-2])"))) << *text;
  }
}

TEST_P(Grammar, AChoiceIsOneOfThem) {
  const output_grammar choice{kind::choice, R"(["yes","no","a \"quoted\" one","no way"])"};
  std::set<std::string> seen;
  for (unsigned seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    const auto text = world_.walk(choice, random, 60);
    ASSERT_TRUE(text);
    seen.insert(*text);
  }
  EXPECT_EQ(seen, (std::set<std::string>{"yes", "no", "a \"quoted\" one", "no way"}));
}

TEST_P(Grammar, LarkIsTakenToo) {
  const output_grammar sum{kind::lark, "start: NUMBER (\"+\" NUMBER)*\nNUMBER: /[0-9]{1,3}/\n"};
  EXPECT_TRUE(world_.takes(sum, "1+22+333"));
  EXPECT_FALSE(world_.takes(sum, "1+"));
  EXPECT_FALSE(world_.takes(sum, "1-2"));
}

TEST_P(Grammar, CharactersOfSeveralBytesMayBeSplitOverTokens) {
  const output_grammar choice{kind::choice, R"(["日本語","ñandú 🦤"])"};
  EXPECT_TRUE(world_.takes(choice, "日本語"));
  EXPECT_TRUE(world_.takes(choice, "ñandú 🦤"));
  EXPECT_FALSE(world_.takes(choice, "日本"));
}

TEST_P(Grammar, ASpecialTokenNeverComesInsideOfAText) {
  grammar_state state = world::must(world_.grammars().start({kind::regex, "(.|\n){5,9}"}));
  for (int i = 0; i < 3; ++i) {
    const ids may = world_.allowed(state);
    ASSERT_FALSE(may.empty());
    EXPECT_EQ(std::find(may.begin(), may.end(), world_.end()), may.end());
    EXPECT_FALSE(world::must(world_.grammars().start({kind::regex, "a"})).accept(world_.end()));
    ASSERT_TRUE(state.accept(world_.encode("a")[0]));
  }
}

TEST_P(Grammar, AStateMadeAnewFromTheTokensHasTheSameMasks) {
  std::mt19937 random(7);
  grammar_state state = world::must(world_.grammars().start(schema(person)));
  ids text;
  for (int i = 0; i < 25; ++i) {
    const ids may = world_.allowed(state);
    grammar_state again = world::must(world_.grammars().start(schema(person)));
    for (const std::int32_t id : text) ASSERT_TRUE(again.accept(id));
    ASSERT_EQ(world_.allowed(again), may) << "after " << text.size() << " tokens";
    if (may.size() == 1 && may[0] == world_.end()) break;
    std::int32_t next = world_.end();
    while (next == world_.end()) next = may[random() % may.size()];
    ASSERT_TRUE(state.accept(next));
    text.push_back(next);
  }
}

TEST_P(Grammar, WhatCannotBeUsedIsRefusedInOneLine) {
  EXPECT_NE(world_.refusal(schema("{")), "accepted");
  EXPECT_NE(world_.refusal(schema("7")), "accepted");
  EXPECT_NE(world_.refusal(schema(R"({"type":"no such type"})")), "accepted");
  EXPECT_NE(world_.refusal(schema(R"({"$ref":"http://example.com/schema"})")), "accepted");
  EXPECT_NE(world_.refusal({kind::regex, "(a"}), "accepted");
  EXPECT_NE(world_.refusal({kind::lark, "start: nowhere"}), "accepted");
  EXPECT_NE(world_.refusal({kind::choice, "[]"}), "accepted");
  EXPECT_NE(world_.refusal({kind::choice, "[1]"}), "accepted");
  EXPECT_NE(world_.refusal({kind::choice, R"([""])"}), "accepted");
  EXPECT_NE(world_.refusal(schema(std::string(300000, ' ').c_str())), "accepted");
}

// Each would take minutes or gigabytes without bounds. The time is 20 times what they take.
TEST_P(Grammar, HostileGrammarsEndQuickly) {
  const auto begin = std::chrono::steady_clock::now();
  std::string deep;
  for (int i = 0; i < 60; ++i) deep += R"({"items":)";
  deep += "{}" + std::string(60, '}');
  std::vector<output_grammar> hostile = {{kind::regex, "(a{1,1000}){1,1000}"},
                                         {kind::regex, "(((a*)*)*)*b"},
                                         {kind::regex, "(.*a){50}.*"},
                                         {kind::regex, "[ab]*a[ab]{40}"},
                                         schema(deep.c_str()),
                                         schema(R"({"$ref":"#"})"),
                                         {kind::lark, "start: start start | \"a\""}};
  for (const output_grammar& grammar : hostile) {
    auto state = world_.grammars().start(grammar);
    if (!state) continue;
    for (int i = 0; i < 30; ++i) {
      std::vector<std::uint32_t> words(static_cast<std::size_t>((world_.tokens() + 31) / 32));
      if (!state->mask(words) || !state->accept(world_.encode("a")[0])) break;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Grammar, testing::Values("qwen", "llama3", "gemma"),
                         [](const auto& of) { return of.param; });

}  // namespace
}  // namespace troupe::text
