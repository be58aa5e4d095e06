// What a mask allows is what the grammar says: random walks end in valid texts, correct texts are
// allowed token by token, and a state rebuilt from a log is the same state.
#include "models/text/grammar.hpp"

#include <functional>
#include <regex>
#include <set>
#include <thread>

#include "tests/text/grammar_walk.hpp"

namespace troupe::text {
namespace {

constexpr const char* person_schema = R"({
  "type": "object",
  "properties": {
    "name": {"type": "string", "maxLength": 12},
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "married": {"type": "boolean"},
    "kind": {"enum": ["red", "green", "grün", null]},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
    "next": {"$ref": "#/$defs/point"}
  },
  "required": ["name", "age", "next"],
  "additionalProperties": false,
  "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}},
                      "required": ["x"], "additionalProperties": false}}
})";

std::size_t characters(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// What the text says, but for exponents that no double has, which are valid JSON too.
json parsed(const std::string& text) {
  static const std::regex exponent("([0-9][eE][+-]?)[0-9]+");
  return json::parse(std::regex_replace(text, exponent, "$010"), nullptr, false);
}

// nullptr as the answer: valid.
std::string person_fault(const std::string& text) {
  const json value = parsed(text);
  if (!value.is_object()) return "not an object";
  for (const char* const name : {"name", "age", "next"}) {
    if (!value.contains(name)) return std::string("lacks ") + name;
  }
  const std::set<std::string> known = {"name", "age", "married", "kind", "tags", "next"};
  for (const auto& [name, inner] : value.items()) {
    if (!known.contains(name)) return "has " + name;
  }
  if (!value["name"].is_string() || characters(value["name"]) > 12) return "name";
  if (!value["age"].is_number_integer() || value["age"] < 0 || value["age"] > 150) return "age";
  if (value.contains("married") && !value["married"].is_boolean()) return "married";
  if (value.contains("kind") && !value["kind"].is_null() && value["kind"] != "red" &&
      value["kind"] != "green" && value["kind"] != "grün") {
    return "kind";
  }
  if (value.contains("tags")) {
    if (!value["tags"].is_array() || value["tags"].size() > 3) return "tags";
    for (const auto& tag : value["tags"]) {
      if (!tag.is_string() || characters(tag) > 5) return "a tag";
    }
  }
  if (!value["next"].is_object() || value["next"].size() != 1) return "next";
  return value["next"]["x"].is_number() ? "" : "x";
}

struct walk_case {
  const char* name;
  kind of;
  std::string text;
  std::function<std::string(const std::string&)> fault;  // empty: valid
};

std::string regex_fault(const std::string& text, const char* expression) {
  return std::regex_match(text, std::regex(expression)) ? "" : "does not match";
}

std::vector<walk_case> walk_cases() {
  return {
      {"json_object", kind::json_object, "",
       [](const std::string& text) { return parsed(text).is_object() ? "" : "no JSON object"; }},
      {"json_schema", kind::json_schema, person_schema, person_fault},
      {"regex", kind::regex, "(abc|[0-9]{2,4})-x+/[^a-z]?\\d",
       [](const std::string& text) {
         // One of any character but a to z, here of any number of bytes.
         return regex_fault(text, "(abc|[0-9]{2,4})-x+/([^a-z]|[\\x80-\\xff]{2,4})?[^a-z]{1,4}");
       }},
      {"choice", kind::choice,
       R"(["yes", "yes, but", "no/never", "né \"quoted\" (a|b)*", "日本語"])",
       [](const std::string& text) {
         const std::set<std::string> all = {"yes", "yes, but", "no/never", "né \"quoted\" (a|b)*",
                                            "日本語"};
         return all.contains(text) ? "" : "not one of them";
       }},
      {"lark", kind::lark,
       "start: term (OP term)*\nterm: NUMBER | \"(\" start \")\"\nNUMBER: /[0-9]{1,3}/\n"
       "OP: \"+\" | \"*\"\n",
       [](const std::string& text) {
         int depth = 0;
         for (const char c : text) {
           depth += c == '(' ? 1 : c == ')' ? -1 : 0;
           if (depth < 0) return "closes too often";
         }
         if (depth != 0) return "unbalanced";
         return std::regex_match(text, std::regex("[(]*[0-9]{1,3}([)]*[+*][(]*[0-9]{1,3})*[)]*"))
                    ? ""
                    : "no expression";
       }},
  };
}

class GrammarWalks : public testing::TestWithParam<walk_tokenizer> {};

TEST_P(GrammarWalks, EndInTextsThatAreValid) {
  const grammar_world world(GetParam());
  for (const walk_case& of : walk_cases()) {
    const grammar compiled = world.compile(of.of, of.text);
    std::set<std::string> seen;
    for (std::uint32_t seed = 0; seed < 12; ++seed) {
      std::mt19937 chance(seed);
      grammar_state state = compiled.start().value();
      const std::string text = world.text(world.walk(state, chance, 60));
      EXPECT_EQ(of.fault(text), "") << of.name << ", seed " << seed << ": " << text;
      seen.insert(text);
    }
    EXPECT_GT(seen.size(), 2U) << of.name;
  }
}

TEST_P(GrammarWalks, AllowEveryTokenOfACorrectText) {
  const grammar_world world(GetParam());
  const std::vector<std::tuple<kind, std::string, std::string>> cases = {
      {kind::json_object, "", R"({"a b": [1, -2.5e3, "ü\n\\", {"c": null}], "日": true})"},
      {kind::json_object, "", "{}"},
      {kind::json_schema, person_schema,
       R"({"name": "Zoë 🙂", "age": 42, "next": {"x": -0.5}})"},
      {kind::json_schema, person_schema,
       "{\n  \"name\": \"\",\n  \"age\": 0,\n  \"kind\": \"grün\",\n  \"next\": {\"x\": 1}\n}"},
      {kind::regex, "^\\d{4}-\\d{2}-\\d{2}$", "2026-11-27"},
      {kind::regex, "(?i)hello .+!", "HeLLo wörld 🙂!"},
      {kind::regex, "", ""},
      {kind::choice, R"(["yes", "yes, but"])", "yes, but"},
      {kind::lark, "start: \"SELECT \" NAME (\", \" NAME)*\nNAME: /[a-z_]+/\n", "SELECT a, bc_d"},
  };
  for (const auto& [of, source, text] : cases) {
    grammar_state state = world.compile(of, source).start().value();
    // As after a prompt: some tokenizers put a space before the first word of a text.
    ids all = world.tokens.encode("\n" + text, {.add_special_tokens = false}).value();
    const ids before = world.tokens.encode("\n", {.add_special_tokens = false}).value();
    if (!std::equal(before.begin(), before.end(), all.begin())) continue;
    all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(before.size()));
    if (world.text(all) != text) continue;  // a character that this small vocabulary has not
    for (const std::int32_t id : all) {
      ASSERT_FALSE(state.finished());
      ASSERT_TRUE(has(world.mask(state), id))
          << text << ": " << world.tokens.id_to_token(id).value();
      ASSERT_TRUE(state.accept(id).has_value());
    }
    EXPECT_TRUE(state.may_stop()) << text;
    EXPECT_TRUE(has(world.mask(state), world.ends[0])) << text;
    EXPECT_TRUE(state.accept(world.ends[0]).has_value());
    EXPECT_TRUE(state.finished());
    EXPECT_FALSE(state.accept(all.empty() ? 5 : all[0]).has_value());
  }
}

TEST_P(GrammarWalks, AreTheSameWhenRebuiltFromTheLog) {
  const grammar_world world(GetParam());
  for (const walk_case& of : walk_cases()) {
    const grammar compiled = world.compile(of.of, of.text);
    grammar_state state = compiled.start().value();
    std::mt19937 chance(3);
    ids log;
    for (int step = 0; step < 40 && !state.finished(); ++step) {
      const words mask = world.mask(state);
      grammar_state rebuilt = compiled.start().value();
      for (const std::int32_t id : log) ASSERT_TRUE(rebuilt.accept(id).has_value());
      ASSERT_EQ(world.mask(rebuilt), mask) << of.name << " after " << log.size() << " tokens";
      ASSERT_EQ(rebuilt.may_stop(), state.may_stop());
      ids choices = allowed_of(mask);
      std::erase_if(choices, [&](std::int32_t id) {
        return std::find(world.ends.begin(), world.ends.end(), id) != world.ends.end();
      });
      log.push_back(choices[chance() % choices.size()]);
      ASSERT_TRUE(state.accept(log.back()).has_value());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, GrammarWalks, testing::ValuesIn(walk_tokenizers()),
                         [](const auto& of) { return of.param.name; });

TEST(Grammar, RefusesATokenThatIsNotAllowedAndGoesOn) {
  const grammar_world world(demo_tokenizer());
  grammar_state state = world.compile(kind::regex, "[0-9]+").start().value();
  const words before = world.mask(state);
  const std::int32_t letter = world.tokens.token_to_id("a").value();
  for (const std::int32_t id : {letter, world.ends[0], world.tokens.token_count(),
                                world.vocab_size - 1, world.vocab_size + 100, -1}) {
    const auto taken = state.accept(id);
    ASSERT_FALSE(taken.has_value()) << id;
    EXPECT_EQ(taken.error().code, base::error_code::invalid_argument);
    EXPECT_THAT(taken.error().message, testing::HasSubstr(std::to_string(id)));
  }
  EXPECT_EQ(world.mask(state), before);
  EXPECT_TRUE(state.accept(world.tokens.token_to_id("7").value()).has_value());
  EXPECT_TRUE(state.may_stop());
  EXPECT_FALSE(state.finished());
}

TEST(Grammar, RebuildsALongLogWithoutAnyMask) {
  // The library fills its fuel at masks only: 30,000 tokens of ever new strings need many fillings.
  const grammar_world world(demo_tokenizer());
  const grammar compiled = world.compile(kind::json_schema, R"({"type": "array", "items": {
      "type": "string", "pattern": "^([a-z]{1,9} ){0,40}(1|22|333)$"}})");
  std::string text = "[";
  std::mt19937 chance(1);
  for (int i = 0; i < 1500; ++i) {
    text += i == 0 ? "\"" : ",\"";
    for (auto word = chance() % 9; word > 0; --word) {
      text += std::string(1 + chance() % 8, static_cast<char>('a' + chance() % 26)) + ' ';
    }
    text += "22\"";
  }
  const ids log = world.tokens.encode(text, {.add_special_tokens = false}).value();
  ASSERT_GT(log.size(), 10'000U);
  grammar_state rebuilt = compiled.start().value();
  grammar_state masked = compiled.start().value();
  for (std::size_t i = 0; i < log.size(); ++i) {
    const auto taken = rebuilt.accept(log[i]);
    ASSERT_TRUE(taken.has_value()) << "token " << i << ": " << taken.error().message;
    if (i % 7 == 0) static_cast<void>(world.mask(masked));
    ASSERT_TRUE(masked.accept(log[i]).has_value());
  }
  EXPECT_EQ(world.mask(rebuilt), world.mask(masked));
}

TEST(Grammar, LetsCharactersBeSplitOverTokens) {
  const grammar_world world(qwen_tokenizer());
  const std::string text = "日本語🙂";
  const ids all = world.tokens.encode(text, {.add_special_tokens = false}).value();
  ASSERT_GT(all.size(), characters(text));  // so at least one token is a part of a character
  grammar_state state = world.compile(kind::regex, "[^a-z]{4}").start().value();
  for (const std::int32_t id : all) {
    ASSERT_TRUE(has(world.mask(state), id));
    ASSERT_TRUE(state.accept(id).has_value());
  }
  EXPECT_TRUE(state.finished());
  // Any four characters: whatever bytes are drawn, they are whole characters in the end.
  const grammar any = world.compile(kind::regex, "[^a-z]{4}");
  for (std::uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 chance(seed);
    grammar_state drawn = any.start().value();
    const std::string made = world.text(world.walk(drawn, chance, 100));
    EXPECT_EQ(made.find("\xef\xbf\xbd"), std::string::npos) << "seed " << seed << ": " << made;
    EXPECT_EQ(characters(made), 4U) << "seed " << seed << ": " << made;
  }
}

TEST(Grammar, BoundsWhiteSpaceInJson) {
  const grammar_world world(demo_tokenizer());
  const std::int32_t space = world.tokens.token_to_id("Ġ").value();
  const std::int32_t line_break = world.tokens.token_to_id("Ċ").value();
  const grammar object = world.compile(kind::json_object, "");
  for (const bool on_a_line_of_its_own : {false, true}) {
    grammar_state state = object.start().value();
    ASSERT_TRUE(state.accept(world.tokens.token_to_id("{").value()).has_value());
    if (on_a_line_of_its_own) {
      ASSERT_TRUE(state.accept(line_break).has_value());
    }
    int spaces = 0;
    while (spaces < 1000 && has(world.mask(state), space)) {
      ASSERT_TRUE(state.accept(space).has_value());
      ++spaces;
    }
    EXPECT_EQ(spaces, on_a_line_of_its_own ? 32 : 1);
    EXPECT_FALSE(has(world.mask(state), line_break));
    EXPECT_TRUE(has(world.mask(state), world.tokens.token_to_id("}").value()));
  }
}

TEST(Grammar, KeepsTheOrderOfASchema) {
  const grammar_world world(demo_tokenizer());
  const grammar compiled = world.compile(kind::json_schema, R"({"type": "object", "properties":
      {"z": {"type": "null"}, "a": {"type": "null"}}, "required": ["a", "z"],
      "additionalProperties": false})");
  grammar_state state = compiled.start().value();
  std::mt19937 chance(5);
  const std::string text = world.text(world.walk(state, chance, 100));
  EXPECT_LT(text.find("\"z\""), text.find("\"a\"")) << text;
}

TEST(Grammar, RunsOnManyThreadsAtOnce) {
  const grammar_world world(demo_tokenizer());
  const grammar compiled = world.compile(kind::json_schema, person_schema);
  const auto walked = [&](std::uint32_t seed) {
    std::mt19937 chance(seed);
    grammar_state state = compiled.start().value();
    return world.walk(state, chance, 50);
  };
  std::vector<ids> alone(8);
  std::vector<ids> together(8);
  for (std::uint32_t seed = 0; seed < 8; ++seed) alone[seed] = walked(seed);
  std::vector<std::thread> threads;
  for (std::uint32_t seed = 0; seed < 8; ++seed) {
    threads.emplace_back([&, seed] { together[seed] = walked(seed); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(alone, together);
}

TEST(Grammar, OutlivesWhatMadeIt) {
  std::optional<grammar_state> state;
  words mask;
  {
    const grammar_world world(demo_tokenizer());
    mask.resize(mask_words(world.vocab_size));
    state = world.compile(kind::regex, "[0-9]+").start().value();
  }
  ASSERT_TRUE(state->mask(mask).has_value());
  EXPECT_FALSE(allowed_of(mask).empty());
}

TEST(Grammar, EndsWithoutAnyEndToken) {
  const tokenizer tokens = tokenizer::open(demo_tokenizer().folder).value();
  const auto factory = grammar_factory::make(tokens, {.vocab_size = 2560}).value();
  grammar_state state = factory.compile({kind::choice, R"(["7"])"}).value().start().value();
  ASSERT_TRUE(state.accept(tokens.token_to_id("7").value()).has_value());
  EXPECT_TRUE(state.finished());
  words mask(mask_words(2560));
  ASSERT_TRUE(state.mask(mask).has_value());
  EXPECT_TRUE(allowed_of(mask).empty());
}

TEST(Grammar, NeedsATokenizerWhoseTokensAreBytes) {
  for (const char* const name : {"plain", "suffix", "across"}) {
    const tokenizer tokens = tokenizer::open(golden_folder() / "tokenizers" / name).value();
    const auto made = grammar_factory::make(tokens, {.vocab_size = tokens.token_count()});
    ASSERT_FALSE(made.has_value()) << name;
    EXPECT_EQ(made.error().code, base::error_code::unimplemented);
    EXPECT_THAT(made.error().message, testing::HasSubstr("decoder"));
  }
  for (const auto& entry : folders_in(golden_folder() / "tokenizers")) {
    if (entry == "plain" || entry == "suffix" || entry == "across") continue;
    const tokenizer tokens = tokenizer::open(golden_folder() / "tokenizers" / entry).value();
    EXPECT_TRUE(grammar_factory::make(tokens, {.vocab_size = tokens.token_count()}).has_value())
        << entry;
  }
}

TEST(Grammar, ChecksItsOptions) {
  const tokenizer tokens = tokenizer::open(demo_tokenizer().folder).value();
  for (const grammar_options& options :
       {grammar_options{.vocab_size = 0}, grammar_options{.vocab_size = -5},
        grammar_options{.vocab_size = 1 << 30},
        grammar_options{.eos_token_ids = {2560}, .vocab_size = 2560},
        grammar_options{.eos_token_ids = {-1}, .vocab_size = 2560}}) {
    const auto made = grammar_factory::make(tokens, options);
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().code, base::error_code::invalid_argument) << made.error().message;
  }
}

}  // namespace
}  // namespace troupe::text
