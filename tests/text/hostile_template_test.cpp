// Chat templates and requests that want too much: each bound once.
#include <initializer_list>
#include <random>
#include <string>

#include "models/text/chat_template.hpp"
#include "tests/text/golden_files.hpp"

namespace troupe::text {
namespace {

constexpr const char* hello = R"([{"role":"user","content":"Hello"}])";

base::result<std::string> render(const std::string& source, const render_options& options = {},
                                 const std::string& messages = hello) {
  auto chat = chat_template::from_files({.chat_template = source});
  if (!chat) {
    return tl::unexpected(chat.error());
  }
  return chat->render(messages, options);
}

void expect_refused(const base::result<std::string>& text, base::error_code code,
                    const std::string& part) {
  ASSERT_FALSE(text.has_value()) << part << " gave " << text->substr(0, 200);
  EXPECT_EQ(text.error().code, code) << text.error().message;
  EXPECT_NE(text.error().message.find(part), std::string::npos) << text.error().message;
  EXPECT_EQ(text.error().message.find('\n'), std::string::npos) << text.error().message;
}

TEST(ChatTemplate, SaysWhatItLookedFor) {
  const auto opened = chat_template::open("no/such/folder");
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, base::error_code::not_found);
  EXPECT_NE(opened.error().message.find("no/such/folder/chat_template.jinja"), std::string::npos);
  EXPECT_NE(opened.error().message.find("tokenizer_config.json"), std::string::npos);
}

TEST(ChatTemplate, ComesFromTokenizerConfigToo) {
  const std::string one = R"({"chat_template":"{{ messages[0].content }}{{ eos_token }}",)"
                          R"("eos_token":"<e>"})";
  const auto chat = chat_template::from_files({.tokenizer_config_json = one});
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  EXPECT_EQ(chat->render(hello, {}).value(), "Hello<e>");

  const std::string list = R"({"chat_template":[{"name":"default","template":"D"},)"
                           R"({"name":"rag","template":"R"},{"name":"tool_use","template":"T"}]})";
  const auto named = chat_template::from_files({.tokenizer_config_json = list});
  ASSERT_TRUE(named.has_value()) << named.error().message;
  EXPECT_EQ(named->render(hello, {}).value(), "D");
  EXPECT_EQ(named->render(hello, {.tools_json = "[{}]"}).value(), "T");
  // The file wins.
  const auto file = chat_template::from_files({.chat_template = "F", .tokenizer_config_json = one});
  EXPECT_EQ(file->render(hello, {}).value(), "F");
}

TEST(ChatTemplate, NamesTheLine) {
  expect_refused(render("a\nb {{ x.y.z }}"), base::error_code::invalid_argument, "line 2");
  expect_refused(render("a\n\n{% if %}"), base::error_code::invalid_argument, "line 3");
  expect_refused(render("{{ 1 }}\n{{ raise_exception('no\nway') }}"),
                 base::error_code::invalid_argument, "line 2: no way");
}

TEST(ChatTemplate, StopsEndlessWork) {
  const std::string loop =
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
  expect_refused(render(loop), base::error_code::resource_exhausted, "fuel");
  const std::string sorting =
      "{% for a in range(99999) %}{% set x = range(99999) | sort | list %}{% endfor %}";
  expect_refused(render(sorting), base::error_code::resource_exhausted, "fuel");
}

TEST(ChatTemplate, GivesLongChatsTheFuelTheyNeed) {
  std::string messages = "[";
  for (int i = 0; i < 1024; ++i) {
    messages += (i == 0 ? "" : ",");
    messages += R"({"role":")" + std::string(i % 2 == 0 ? "user" : "assistant") +
                R"(","content":")" + std::string(900, 'x') + "\"}";
  }
  messages += "]";
  for (const char* style : {"llama3", "qwen3", "mistral", "chatml"}) {
    const std::string source =
        read_text(golden_folder() / "chat/templates" / style / "chat_template.jinja");
    render_options options;
    options.now = {.year = 2026, .month = 1, .day = 1};
    const std::string config = R"({"bos_token":"<s>","eos_token":"</s>"})";
    const auto chat = chat_template::from_files(
        {.chat_template = source, .tokenizer_config_json = std::string_view(config)});
    const auto text = chat->render(messages, options);
    ASSERT_TRUE(text.has_value()) << style << ": " << text.error().message;
    EXPECT_GT(text->size(), 1024u * 900u);
  }
}

TEST(ChatTemplate, BoundsItsOutput) {
  const std::string source = "{% for a in range(90) %}{{ 'x' * 20000 }}{% endfor %}";
  render_options rich;
  rich.limits.fuel_base = 10'000'000;
  expect_refused(render(source, rich), base::error_code::resource_exhausted, "1048576 bytes");
  render_options small;
  small.limits.output_bytes_max = 4;
  expect_refused(render("Hello", small), base::error_code::resource_exhausted, "4 bytes");
  EXPECT_EQ(render("Hell", small).value(), "Hell");
}

TEST(ChatTemplate, BoundsItsMemory) {
  const auto doubled = [](const std::string& start, const std::string& sum) {
    return "{% set n = namespace(s=" + start + ") %}{% for i in range(99) %}{% set n.s = " + sum +
           " %}{% endfor %}";
  };
  for (const std::string& source : std::initializer_list<std::string>{
           doubled("'x'", "n.s ~ n.s"),
           doubled("'x'", "n.s + n.s"),
           doubled("[1]", "n.s + n.s"),
           "{{ 'x' * 99999999999 }}",
           "{{ ([0] * 99999999999)|length }}",
           "{{ ('x' * 8000).replace('x', 'y' * 8000)|length }}",
           "{{ ('x' * 8000).replace('', 'y' * 8000)|length }}",
           "{{ ('y' * 8000).join(['x'] * 8000)|length }}",
           "{{ 'x'.center(99999999999)|length }}",
           "{{ 'x' | center(99999999999) }}",
           "{{ '%9999999999d' % 1 }}",
           "{{ ('\n' * 9000) | indent('x' * 9000, blank=true) }}",
           "{{ [['x' * 9000] * 9000] | tojson | length }}",
           "{{ ([['x' * 9000] * 9000] | string) | length }}",
           "{{ [['x' * 9000] * 9000] ~ '' }}",
           "{{ [['x' * 9000] * 9000] }}",
           "{{ (['x' * 9000] * 9000) | join | length }}",
           "{{ strftime_now('%A' * 999999) }}",
       }) {
    const auto text = render(source);
    ASSERT_FALSE(text.has_value()) << source;
    EXPECT_TRUE(text.error().code == base::error_code::resource_exhausted ||
                text.error().code == base::error_code::invalid_argument)
        << source << ": " << text.error().message;
  }
}

TEST(ChatTemplate, BoundsRecursion) {
  const std::string endless = "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}";
  expect_refused(render(endless), base::error_code::resource_exhausted, "deeper than 32");
  const std::string fine =
      "{% macro m(x) %}{{ x }}{% if x %}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(31) }}";
  EXPECT_TRUE(render(fine).has_value());
  const std::string nested =
      "{% set n = namespace(l=[]) %}{% for i in range(9999) %}"
      "{% set n.l = [n.l] %}{% endfor %}{{ n.l }}";
  expect_refused(render(nested), base::error_code::invalid_argument, "deeper than 200");
  const std::string cycle = "{% set n = namespace(a=1) %}{% set n.n = [n] %}{{ n }}";
  expect_refused(render(cycle), base::error_code::invalid_argument, "namespace");
}

TEST(ChatTemplate, BoundsTheSyntaxTree) {
  for (const auto& [open, close] :
       std::vector<std::pair<std::string, std::string>>{{"(", ")"},
                                                        {"[", "]"},
                                                        {"{% if 1 %}", "{% endif %}"},
                                                        {"not ", ""},
                                                        {"-", ""},
                                                        {"{% if 0 %}{% elif 1 %}", ""},
                                                        {"1 + ", ""},
                                                        {"1 if 1 else ", ""},
                                                        {"x.", "x"},
                                                        {"a|", "b"},
                                                        {"1 ~ ", ""}}) {
    std::string source;
    for (int i = 0; i < 70'000; ++i) {
      source += open;
    }
    const bool is_block = open.starts_with("{%");
    source = (is_block ? "" : "{{ ") + source + "1";
    for (int i = 0; i < 70'000; ++i) {
      source += close;
    }
    const auto text = render(source + (is_block ? "" : " }}"));
    EXPECT_FALSE(text.has_value()) << open;
  }
}

TEST(ChatTemplate, HasNoWayOut) {
  for (const char* source :
       {"{% include 'x' %}", "{% import 'x' as x %}", "{% extends 'x' %}", "{{ ''.__class__() }}",
        "{{ self.x() }}", "{{ messages.append(1) }}", "{{ lipsum() }}", "{{ open('x') }}",
        "{{ config.items() }}", "{{ cycler.__init__.__globals__ }}"}) {
    EXPECT_FALSE(render(source).has_value()) << source;
  }
}

TEST(ChatTemplate, NeedsTheDateFromOutside) {
  expect_refused(render("{{ strftime_now('%Y') }}"), base::error_code::invalid_argument, "date");
  render_options options;
  options.now = {.year = 2024, .month = 2, .day = 29};
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y %j %a') }}", options).value(), "29 Feb 2024 060 Thu");
}

TEST(ChatTemplate, AllowsOnlyListedKwargs) {
  render_options options;
  options.kwargs_json = R"({"enable_thinking":false})";
  EXPECT_EQ(render("{{ enable_thinking }}", options).value(), "False");
  options.kwargs_json = R"({"messages":[]})";
  expect_refused(render("x", options), base::error_code::invalid_argument, "'messages'");
  options.kwargs_json = R"({"chat_template":"x"})";
  expect_refused(render("x", options), base::error_code::invalid_argument, "enable_thinking");
  options.kwargs_json = "[]";
  expect_refused(render("x", options), base::error_code::invalid_argument, "JSON object");
}

TEST(ChatTemplate, RefusesMalformedRequests) {
  for (const char* messages :
       {"", "{", "{}", "[]", "[1]", "7", "[{\"a\":1}", "[{\"a\":01}]", "[{\"a\":tru}]",
        "[{\"a\":\"\\ud800\"}]", "[{\"a\":\"\x01\"}]", "[{\"a\":\"\xff\"}]", "[{a:1}]",
        "[{\"a\":1}] x", "[{\"a\":1e}]", "[{\"a\":-}]", "[{\"a\":\"\\x\"}]"}) {
    expect_refused(render("x", {}, messages), base::error_code::invalid_argument, "messages");
  }
  expect_refused(render("x", {}, std::string(100'000, '[')), base::error_code::invalid_argument,
                 "deeper than 64");
  render_options options;
  options.tools_json = "{}";
  expect_refused(render("x", options), base::error_code::invalid_argument, "tools");
  options.tools_json = "[7]";
  expect_refused(render("x", options), base::error_code::invalid_argument, "tools");
}

TEST(ChatTemplate, RefusesTemplatesAbove1MiB) {
  expect_refused(render(std::string((std::size_t{1} << 20) + 1, 'x')),
                 base::error_code::resource_exhausted, "1 MiB");
  expect_refused(render("\xff"), base::error_code::invalid_argument, "UTF-8");
}

TEST(ChatTemplate, SurvivesMutation) {
  const std::vector<std::string> styles = folders_in(golden_folder() / "chat/templates");
  const json chats = read_json(golden_folder() / "chat/chats.json");
  int rendered = 0;
  for (std::uint32_t seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 chance(seed);
    const auto folder = golden_folder() / "chat/templates" / styles[seed % styles.size()];
    std::string source = read_text(folder / "chat_template.jinja");
    for (std::uint32_t i = 0; i <= chance() % 4; ++i) {
      const std::size_t at = chance() % source.size();
      switch (chance() % 4) {
        case 0:
          source[at] = static_cast<char>(chance() % 128);
          break;
        case 1:
          source.erase(at, chance() % 12);
          break;
        case 2:
          source.insert(at, source.substr(chance() % source.size(), chance() % 60));
          break;
        default:
          source[at] = "{}%#'\"()[]|.~+-*/\n"[chance() % 18];
          break;
      }
    }
    const auto text = render(source, {}, chats[seed % 3 == 0 ? "tools" : "turns"].dump());
    rendered += text.has_value() ? 1 : 0;
    if (!text) {
      EXPECT_EQ(text.error().message.find('\n'), std::string::npos) << text.error().message;
      EXPECT_NE(text.error().code, base::error_code::internal) << text.error().message;
    }
  }
  EXPECT_GT(rendered, 100);
}

}  // namespace
}  // namespace troupe::text
