// Grammars that are wrong, huge or slow end in one clear line, in bounded time and memory.
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "models/text/grammar_cache.hpp"
#include "tests/text/grammar_walk.hpp"

namespace troupe::text {
namespace {

std::string times(std::string_view part, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += part;
  return out;
}

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// Compile has a second; a shared machine and sanitizers get ten.
constexpr std::chrono::seconds compile_bound{10};

struct hostile_case {
  kind of;
  std::string text;
  const char* says;  // a part of the message; nullptr: it may also compile
};

base::result<grammar> timed(const grammar_factory& factory, const hostile_case& of) {
  const auto begin = std::chrono::steady_clock::now();
  auto made = factory.compile({of.of, of.text});
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took, compile_bound) << of.text.substr(0, 80);
  return made;
}

void expect_refused(const grammar_factory& factory, const hostile_case& of) {
  const auto made = timed(factory, of);
  if (made) {
    EXPECT_EQ(of.says, nullptr) << of.text.substr(0, 80);
    return;
  }
  const base::error& error = made.error();
  EXPECT_TRUE(error.code == base::error_code::invalid_argument ||
              error.code == base::error_code::resource_exhausted)
      << to_string(error.code) << ": " << error.message;
  EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
  EXPECT_LT(error.message.size(), 1000U) << error.message;
  if (of.says != nullptr) {
    EXPECT_THAT(error.message, testing::HasSubstr(of.says));
  }
}

TEST(HostileGrammar, SaysWhatIsWrong) {
  const grammar_world world(demo_tokenizer());
  const std::vector<hostile_case> cases = {
      {kind::json_schema, "{", "malformed JSON: EOF while parsing an object at line 1 column 1"},
      {kind::json_schema, "[]", "no JSON object"},
      {kind::json_schema, "\"x\"", "no JSON object"},
      {kind::json_schema, R"({"type": "objekt"})", "objekt"},
      {kind::json_schema, R"({"type": 5})", "type"},
      {kind::json_schema, R"({"$ref": "#/$defs/none"})", "none"},
      {kind::json_schema, R"({"$ref": "http://192.0.2.1/schema.json"})", "192.0.2.1"},
      {kind::json_schema, R"({"$ref": "file:///etc/passwd"})", "passwd"},
      {kind::json_schema, R"({"$ref": "#"})", ""},
      {kind::json_schema, R"({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
                              "$ref": "#/$defs/a"})",
       ""},
      {kind::json_schema, R"({"x-guidance": {"whitespace_pattern": ".*"}})", "x-guidance"},
      {kind::json_schema, R"({"type": "string", "pattern": "(a"})", "(a"},
      {kind::json_schema, R"({"type": "integer", "minimum": 5, "maximum": 4})", ""},
      {kind::json_schema, "false", "no JSON object"},
      {kind::regex, "(a", "regular expression"},
      {kind::regex, "a{3,2}", "regular expression"},
      {kind::regex, "[z-a]", "regular expression"},
      {kind::regex, "(?=a)b", "regular expression"},
      {kind::regex, "(a)\\1", "regular expression"},
      {kind::regex, "a\xff", "malformed UTF-8 at byte 1"},
      {kind::choice, "[]", "empty"},
      {kind::choice, "[1]", "list of strings"},
      {kind::choice, "{}", "list of strings"},
      {kind::lark, "", "Lark"},
      {kind::lark, "start: undefined_rule", "undefined_rule"},
      {kind::lark, "begin: \"a\"", "start"},
      {kind::lark, "start: \"a", "Lark"},
      {kind::lark, "start: <|im_end|>", "special tokens"},
      {kind::lark, "start: <[2]>", ""},
      {kind::lark, "%import common.NOTHING\nstart: NOTHING", "NOTHING"},
  };
  for (const hostile_case& of : cases) {
    SCOPED_TRACE(of.text);
    expect_refused(world.factory, of);
  }
}

std::vector<hostile_case> heavy_texts() {
  std::string names;
  std::string rules;
  for (int i = 0; i < 3000; ++i) {
    names += fmt::format(R"({}"{} choice {} choice")", i == 0 ? "" : ",", i, i);
    if (i < 1200) rules += fmt::format("r{}: r{} r{}\n", i, i + 1, i + 1);
  }
  return {
      // Too large, too deep.
      {kind::regex, std::string(300'000, 'a'), "300000 bytes, more than 16384"},
      {kind::lark, "start: \"a\" //" + std::string(40'000, 'a'), "more than 32768"},
      {kind::choice, "[\"" + std::string(140'000, 'a') + "\"]", "more than 131072"},
      {kind::json_schema, times(R"({"items":)", 70) + "{}" + times("}", 70), "nests deeper"},
      {kind::regex, times("(", 100) + "a" + times(")", 100), "nests deeper"},
      {kind::lark, "start: " + times("(", 1000) + "\"a\"" + times(")", 1000), "nests deeper"},
      // Repeats of repeats.
      {kind::regex, "((((a{100}){100}){100}){100}){100}", nullptr},
      {kind::regex, "a{1000000000}", nullptr},
      {kind::regex, "(a|b|ab|ba){0,100000}", nullptr},
      {kind::regex, ".{0,60000}", nullptr},
      {kind::regex, times("(a?){50}", 200) + times("a", 500), nullptr},
      // Exponential as a DFA.
      {kind::regex, "(a|b)*a(a|b){30}", nullptr},
      {kind::regex, times("(.*a.*b){2}", 60), nullptr},
      {kind::regex, ".*" + times("(\\w+\\s?)*", 60) + "$", nullptr},
      {kind::regex, "(\\p{L}|\\p{N}|\\p{So}){50,500}", nullptr},
      {kind::regex, times("(a|b)?", 2'700), nullptr},
      {kind::regex, times("a?", 8'000), nullptr},
      {kind::regex, times(".{1,3}", 2'700), nullptr},
      {kind::regex, std::string(16'000, 'a'), nullptr},
      {kind::regex, times("abcde|", 2'700) + "x", nullptr},
      {kind::choice, "[" + names + "]", nullptr},
      // Ambiguous and left recursive grammars, and one that doubles 1,200 times.
      {kind::lark, "start: start start | \"a\" | \"\"", nullptr},
      {kind::lark, "start: a*\na: b*\nb: \"x\"*", nullptr},
      {kind::lark, "start: r0\n" + rules + "r1200: \"a\"\n", nullptr},
      {kind::lark, "start: \"a\"{1,100000}", nullptr},
      {kind::lark, "start: X{1000} X{1000}\nX: /a{1000}/", nullptr},
      {kind::lark, "start: " + times("\"a\" | ", 5'000) + "\"b\"", nullptr},
  };
}

std::vector<hostile_case> heavy_schemas() {
  std::string properties;
  std::string many_properties;
  std::string any_of;
  std::string all_of;
  for (int i = 0; i < 501; ++i) {
    const char* const comma = i == 0 ? "" : ",";
    const std::string property = fmt::format(R"({}"p{}":{{"type":"string"}})", comma, i);
    if (i < 500) properties += property;
    many_properties += property;
    if (i < 500) {
      any_of += fmt::format(
          R"({}{{"type":"object","properties":{{"k{}":{{"type":"integer"}}}},"required":["k{}"]}})",
          comma, i, i);
    }
    if (i < 14) {
      all_of +=
          fmt::format(R"({}{{"anyOf":[{{"properties":{{"a{}":{{"type":"string"}}}}}},)", comma, i) +
          fmt::format(R"({{"properties":{{"b{}":{{"type":"number"}}}}}}]}})", i);
    }
  }
  std::string doubling = R"({"$defs":{"d0":{"type":"string"})";
  for (int i = 1; i < 40; ++i) {
    const std::string below = fmt::format(R"({{"$ref":"#/$defs/d{}"}})", i - 1);
    doubling += fmt::format(R"(,"d{}":{{"allOf":[{},{}]}})", i, below, below);
  }
  doubling += R"(},"$ref":"#/$defs/d39"})";
  return {
      // Schemas that unfold.
      {kind::json_schema, R"({"type":"object","properties":{)" + many_properties + "}}",
       "501 members in one properties"},
      {kind::json_schema, R"({"type":"object","properties":{)" + properties + "}}", nullptr},
      {kind::json_schema, R"({"anyOf":[)" + any_of + "]}", nullptr},
      {kind::json_schema, R"({"allOf":[)" + all_of + "]}", nullptr},
      {kind::json_schema, doubling, nullptr},
      {kind::json_schema, R"({"type":"array","items":{"type":"integer"},"minItems":1000000})",
       nullptr},
      {kind::json_schema, R"({"type":"array","maxItems":100000})", nullptr},
      {kind::json_schema, R"({"type":"string","minLength":100000,"maxLength":1000000})", nullptr},
      {kind::json_schema, R"({"type":"number","multipleOf":1e-30})", "multipleOf"},
      {kind::json_schema, R"({"type":"integer","multipleOf":9973,"maximum":1e15})", nullptr},
      {kind::json_schema, R"({"type":"integer","multipleOf":1234567})", "multipleOf 1234567"},
      {kind::json_schema, R"({"type":"number","multipleOf":0.12345})", "multipleOf 0.12345"},
      {kind::json_schema,
       R"({"type":"object","patternProperties":{"(a|b)*a(a|b){25}":{},"(b|c)*c(b|c){25}":{}}})",
       nullptr},
  };
}

std::vector<hostile_case> heavy_cases() {
  std::vector<hostile_case> out = heavy_texts();
  for (hostile_case& of : heavy_schemas()) out.push_back(std::move(of));
  return out;
}

// Draws until the grammar ends, a bound is hit or it was long enough. Each step ends in time.
void run_for(const grammar_world& world, const grammar& compiled, const std::string& what) {
  auto state = compiled.start();
  ASSERT_TRUE(state.has_value()) << what;
  words mask(mask_words(world.vocab_size));
  std::mt19937 chance(11);
  for (int step = 0; step < 100 && !state->finished(); ++step) {
    const auto begin = std::chrono::steady_clock::now();
    const auto done = state->mask(mask);
    const auto took = std::chrono::steady_clock::now() - begin;
    ASSERT_LT(took, std::chrono::seconds(5)) << what;
    if (!done) {
      EXPECT_TRUE(done.error().code == base::error_code::resource_exhausted ||
                  done.error().code == base::error_code::failed_precondition)
          << what << ": " << done.error().message;
      EXPECT_FALSE(state->mask(mask).has_value()) << what << ": a failed state goes on";
      return;
    }
    const ids allowed = allowed_of(mask);
    if (!state->accept(allowed[chance() % allowed.size()])) return;
  }
}

TEST(HostileGrammar, EndsInTimeAndMemory) {
  const grammar_world world(demo_tokenizer());
  const std::size_t before = resident_bytes();
  for (const hostile_case& of : heavy_cases()) {
    const std::string what = of.text.substr(0, 60);
    SCOPED_TRACE(what);
    if (of.says != nullptr) {
      expect_refused(world.factory, of);
      continue;
    }
    auto made = timed(world.factory, of);
    if (made) {
      run_for(world, *made, what);
    } else if (!made.error().retryable) {  // while slow ones before it are still in work
      expect_refused(world.factory, of);
    }
    EXPECT_LT(resident_bytes(), before + (std::size_t{3} << 30));
  }
}

TEST(HostileGrammar, DoesNotStallOthers) {
  const grammar_world world(demo_tokenizer());
  const std::vector<hostile_case> heavy = heavy_cases();
  std::atomic<bool> stop = false;
  std::thread attacker([&] {
    for (std::size_t i = 0; !stop; i = (i + 1) % heavy.size()) {
      static_cast<void>(world.factory.compile({heavy[i].of, heavy[i].text}));
    }
  });
  const grammar compiled = world.compile(kind::json_object, "");
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 chance(seed);
    grammar_state state = compiled.start().value();
    EXPECT_TRUE(json::accept(world.text(world.walk(state, chance, 40))));
  }
  stop = true;
  attacker.join();
}

TEST(GrammarCache, GivesTheSameGrammarAgain) {
  grammar_world world(demo_tokenizer());
  grammar_cache cache(std::move(world.factory), {.grammars_max = 2, .text_bytes_max = 100});
  const schemas::output_grammar digits{kind::regex, "[0-9]+"};
  EXPECT_FALSE(cache.find(digits).has_value());
  const auto first = cache.get(digits).value();
  EXPECT_EQ(cache.get(digits).value(), first);
  EXPECT_EQ(cache.find(digits)->value(), first);
  EXPECT_EQ(cache.compiled(), 1U);
  // The kind is a part of the key.
  EXPECT_FALSE(cache.get({kind::json_schema, "[0-9]+"}).has_value());
  EXPECT_EQ(cache.compiled(), 2U);
  EXPECT_FALSE(cache.get({kind::json_schema, "[0-9]+"}).has_value()) << "a refusal is kept";
  EXPECT_EQ(cache.compiled(), 2U);
}

TEST(GrammarCache, KeepsTheLastUsedWithinItsBounds) {
  grammar_world world(demo_tokenizer());
  grammar_cache cache(std::move(world.factory), {.grammars_max = 2, .text_bytes_max = 100});
  const auto of = [](const char* text) { return schemas::output_grammar{kind::regex, text}; };
  static_cast<void>(cache.get(of("a")));
  static_cast<void>(cache.get(of("b")));
  static_cast<void>(cache.get(of("a")));
  static_cast<void>(cache.get(of("c")));  // pushes out b
  EXPECT_TRUE(cache.find(of("a")).has_value());
  EXPECT_FALSE(cache.find(of("b")).has_value());
  EXPECT_EQ(cache.size(), 2U);
  const std::string large(90, 'x');
  static_cast<void>(cache.get({kind::regex, large}));
  static_cast<void>(cache.get({kind::regex, large + "y"}));  // with it more than 100 bytes
  EXPECT_FALSE(cache.find({kind::regex, large}).has_value());
  EXPECT_EQ(cache.size(), 1U);
}

TEST(GrammarCache, FindsWhatIsInUseAlsoWhenItWasPushedOut) {
  grammar_world world(demo_tokenizer());
  grammar_cache cache(std::move(world.factory), {.grammars_max = 1, .text_bytes_max = 100});
  const schemas::output_grammar digits{kind::regex, "[0-9]+"};
  const std::string large(200, 'x');  // never kept by itself
  auto held = cache.get(digits).value();
  const auto held_large = cache.get({kind::regex, large}).value();
  static_cast<void>(cache.get({kind::regex, "b"}));
  EXPECT_EQ(cache.get(digits).value(), held);
  EXPECT_EQ(cache.get({kind::regex, large}).value(), held_large);
  EXPECT_EQ(cache.compiled(), 3U);
  held.reset();
  EXPECT_FALSE(cache.find(digits).has_value());
}

TEST(GrammarCache, ServesManyThreads) {
  grammar_world world(demo_tokenizer());
  grammar_cache cache(std::move(world.factory), {.grammars_max = 4, .text_bytes_max = 1000});
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        const auto got =
            cache.get({kind::regex, std::string(1, static_cast<char>('a' + (i * 7 + t) % 9))});
        failures += !got || !(*got)->start() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_LE(cache.size(), 4U);
}

}  // namespace
}  // namespace troupe::text
