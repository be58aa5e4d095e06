// Answers as models write them, taken apart the same whatever the pieces they come in.
#include "serving/answer_parser.hpp"

#include <gtest/gtest.h>

#include <ostream>

namespace troupe::serving {

void PrintTo(const answer_piece& piece, std::ostream* out) {
  constexpr const char* names[] = {"reasoning", "content", "call", "arguments"};
  *out << names[static_cast<int>(piece.of)] << piece.call << "(" << piece.text << ")";
}

namespace {

using kind = answer_piece::kind;

answer_pieces joined(const answer_pieces& pieces) {
  answer_pieces all;
  for (const answer_piece& piece : pieces) {
    const bool same = !all.empty() && all.back().of == piece.of && all.back().call == piece.call &&
                      piece.of != kind::call;
    if (same) {
      all.back().text += piece.text;
    } else {
      all.push_back(piece);
    }
  }
  return all;
}

// In pieces of `bytes`, the first of `first`.
answer_pieces parse(const answer_form& form, const std::string& text, std::size_t first,
                    std::size_t bytes) {
  const auto parser = make_answer_parser(form);
  answer_pieces out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t count = at == 0 ? std::max<std::size_t>(1, first) : bytes;
    parser->push(text.substr(at, count), out);
    at += count;
  }
  parser->finish(out);
  return joined(out);
}

struct answer_case {
  const char* name;
  answer_form form;
  std::string text;
  answer_pieces pieces;
};

const answer_form hermes{.tools = tool_format::hermes};
const answer_form llama{.tools = tool_format::llama3_json};
const answer_form mistral{.tools = tool_format::mistral};
const answer_form thinking{.reasoning = reasoning_format::qwen3, .tools = tool_format::hermes};

std::vector<answer_case> hermes_cases() {
  return {
      {"PlainContent",
       hermes,
       "It is < 5 degrees.\n",
       {{kind::content, "It is < 5 degrees.\n", 0}}},
      {"OneCall",
       hermes,
       "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n"
       "</tool_call>",
       {{kind::call, "get_weather", 0}, {kind::arguments, "{\"city\": \"Paris\"}", 0}}},
      {"ContentAndTwoCalls",
       hermes,
       "Let me look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": [1, {\"y\": "
       "\"}\\\"\"}]}}"
       "\n</tool_call>\n<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>\n",
       {{kind::content, "Let me look.", 0},
        {kind::call, "a", 0},
        {kind::arguments, "{\"x\": [1, {\"y\": \"}\\\"\"}]}", 0},
        {kind::call, "b", 1},
        {kind::arguments, "{}", 1}}},
      {"ArgumentsBeforeTheName",
       hermes,
       "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>",
       {{kind::call, "f", 0}, {kind::arguments, "{\"a\": 1}", 0}}},
      {"NoArguments",
       hermes,
       "<tool_call>{\"name\": \"now\"}</tool_call>",
       {{kind::call, "now", 0}, {kind::arguments, "{}", 0}}},
      {"ArgumentsInAString",
       hermes,
       R"(<tool_call>{"name": "f", "arguments": "{\"a\": \"\u00e9\"}"}</tool_call>)",
       {{kind::call, "f", 0}, {kind::arguments, "{\"a\": \"é\"}", 0}}},
      {"ClosingTagIsMissing",
       hermes,
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
       {{kind::call, "f", 0}, {kind::arguments, "{\"a\": 1}", 0}}},
      {"CutInTheArguments",
       hermes,
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"long te",
       {{kind::call, "f", 0}, {kind::arguments, "{\"a\": \"long te", 0}}},
      {"NoJsonIsContent",
       hermes,
       "<tool_call>get weather</tool_call>",
       {{kind::content, "<tool_call>get weather</tool_call>", 0}}},
      {"AnObjectThatIsNoCallIsContent",
       hermes,
       "<tool_call>{\"city\": \"Paris\"}</tool_call>",
       {{kind::content, "<tool_call>{\"city\": \"Paris\"}</tool_call>", 0}}},
      {"CutInTheNameIsContent",
       hermes,
       "<tool_call>{\"name\": \"get_w",
       {{kind::content, "<tool_call>{\"name\": \"get_w", 0}}},
  };
}

std::vector<answer_case> llama_and_mistral_cases() {
  return {
      {"LlamaCall",
       llama,
       "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}",
       {{kind::call, "f", 0}, {kind::arguments, "{\"a\": \"b\"}", 0}}},
      {"LlamaTagAndTwoCalls",
       llama,
       "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
       {{kind::call, "f", 0},
        {kind::arguments, "{}", 0},
        {kind::call, "g", 1},
        {kind::arguments, "{}", 1}}},
      {"LlamaWithTypeFirst",
       llama,
       "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": null}}",
       {{kind::call, "f", 0}, {kind::arguments, "{\"a\": null}", 0}}},
      {"LlamaContent", llama, "Hello {name}", {{kind::content, "Hello {name}", 0}}},
      {"LlamaJsonThatIsNoCall",
       llama,
       "{\"answer\": 42}",
       {{kind::content, "{\"answer\": 42}", 0}}},
      {"MistralList",
       mistral,
       "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", "
       "\"arguments\": {}}]",
       {{kind::call, "f", 0},
        {kind::arguments, "{\"a\": 1}", 0},
        {kind::call, "g", 1},
        {kind::arguments, "{}", 1}}},
      {"MistralCompact",
       mistral,
       "Sure.[TOOL_CALLS]f{\"a\": \"}\"}[TOOL_CALLS]g[ARGS]{\"b\": [2]}",
       {{kind::content, "Sure.", 0},
        {kind::call, "f", 0},
        {kind::arguments, "{\"a\": \"}\"}", 0},
        {kind::call, "g", 1},
        {kind::arguments, "{\"b\": [2]}", 1}}},
      {"MistralContent", mistral, "[1, 2] is a list", {{kind::content, "[1, 2] is a list", 0}}},
  };
}

std::vector<answer_case> other_cases() {
  return {
      {"ThinksThenAnswers",
       thinking,
       "<think>\nHm, 2 < 3.\n</think>\n\nThree.",
       {{kind::reasoning, "Hm, 2 < 3.", 0}, {kind::content, "Three.", 0}}},
      {"ThinksThenCalls",
       thinking,
       "<think>\nI need <tool_call>.\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
       "{}}\n</tool_call>",
       {{kind::reasoning, "I need <tool_call>.", 0},
        {kind::call, "f", 0},
        {kind::arguments, "{}", 0}}},
      {"DoesNotThink", thinking, "<thing> is no tag", {{kind::content, "<thing> is no tag", 0}}},
      {"ThinksNothing", thinking, "<think>\n\n</think>\n\nYes", {{kind::content, "Yes", 0}}},
      {"ThinksToTheEnd", thinking, "<think>on and on ", {{kind::reasoning, "on and on ", 0}}},
      {"ThePromptOpensTheThoughts",
       {.reasoning = reasoning_format::qwen3, .reasoning_open = true},
       "so be it</think> it is",
       {{kind::reasoning, "so be it", 0}, {kind::content, "it is", 0}}},
      {"DeepseekThinksFirst",
       {.reasoning = reasoning_format::deepseek_r1},
       "so</think>done",
       {{kind::reasoning, "so", 0}, {kind::content, "done", 0}}},
      {"ListOfCalls",
       {.list_of_calls = true},
       "[{\"name\": \"f\", \"parameters\": {\"a\": 1}}, {\"name\":\"g\",\"parameters\":{}}]",
       {{kind::call, "f", 0},
        {kind::arguments, "{\"a\": 1}", 0},
        {kind::call, "g", 1},
        {kind::arguments, "{}", 1}}},
      {"OneCallOfSeveral",
       {.tools = tool_format::hermes, .calls_max = 1},
       "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call><tool_call>{\"name\": \"g\", "
       "\"arguments\": {}}</tool_call>",
       {{kind::call, "f", 0}, {kind::arguments, "{}", 0}}},
      {"NamedFunction",
       {.function = "f"},
       "{\"a\": 1}",
       {{kind::call, "f", 0}, {kind::arguments, "{\"a\": 1}", 0}}},
  };
}

std::vector<answer_case> cases() {
  std::vector<answer_case> all = hermes_cases();
  for (const auto& more : {llama_and_mistral_cases(), other_cases()}) {
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

class AnswerParser : public testing::TestWithParam<answer_case> {};

TEST_P(AnswerParser, GivesTheSamePiecesWhateverTheCut) {
  const answer_case& of = GetParam();
  for (std::size_t bytes = 1; bytes <= of.text.size(); ++bytes) {
    ASSERT_EQ(parse(of.form, of.text, bytes, bytes), of.pieces) << "in pieces of " << bytes;
  }
  for (std::size_t first = 0; first < of.text.size(); ++first) {
    ASSERT_EQ(parse(of.form, of.text, first, of.text.size()), of.pieces) << "cut at " << first;
  }
}

INSTANTIATE_TEST_SUITE_P(Answers, AnswerParser, testing::ValuesIn(cases()),
                         [](const auto& of) { return std::string(of.param.name); });

TEST(AnswerParserOrder, ArgumentsComeAsTheyAreWritten) {
  const auto parser = make_answer_parser(hermes);
  answer_pieces out;
  parser->push("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"lo", out);
  EXPECT_EQ(out, (answer_pieces{{kind::call, "f", 0}, {kind::arguments, "{\"a\": \"lo", 0}}));
  out.clear();
  parser->push("ng\"", out);
  EXPECT_EQ(out, (answer_pieces{{kind::arguments, "ng\"", 0}}));
}

TEST(AnswerParserOrder, PlainTextNeedsNoParser) { EXPECT_EQ(make_answer_parser({}), nullptr); }

}  // namespace
}  // namespace troupe::serving
