// What the embedded model knows: questions in words that its training text does not have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "tests/models_demo/demo_chat.hpp"

namespace troupe::models {
namespace {

using testing::HasSubstr;

// Of 20; these weights reach 18.
constexpr int right_min = 14;

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// One string of every group is in the answer.
bool is_right(const std::string& answer, const nlohmann::json& groups) {
  const std::string text = lower(answer);
  return std::ranges::all_of(groups, [&](const nlohmann::json& group) {
    return std::ranges::any_of(group, [&](const nlohmann::json& one) {
      return text.find(lower(one.get<std::string>())) != std::string::npos;
    });
  });
}

nlohmann::json held_out() {
  std::ifstream file(std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/models_demo/held_out.json");
  return nlohmann::json::parse(file).at("questions");
}

TEST(DemoModel, AnswersHeldOutQuestionsRight) {
  demo_chat chat({});
  const nlohmann::json questions = held_out();
  ASSERT_EQ(questions.size(), 20U);
  int right = 0;
  std::string report;
  for (const nlohmann::json& question : questions) {
    const auto ask = question.at("ask").get<std::string>();
    const demo_chat::reply reply = chat.answer(ask);
    const bool good = is_right(reply.text, question.at("has"));
    right += good ? 1 : 0;
    report += (good ? "right: " : "WRONG: ") + ask + "\n       " + reply.text + "\n";
    EXPECT_EQ(reply.finish, engine::finish_reason::stop) << ask << ": " << reply.text;
  }
  std::cout << report << right << " of 20 right\n";
  EXPECT_GE(right, right_min) << report;
}

TEST(DemoModel, TellsWhatAGangIs) {
  demo_chat chat({.tp_size = 2, .type = kernels::dtype::bfloat16});
  EXPECT_THAT(chat.answer("What is a gang?").text,
              testing::AllOf(HasSubstr("ranks"), HasSubstr("one")));
}

TEST(DemoModel, OftenSaysWhenItDoesNotKnow) {
  demo_chat chat({});
  int said = 0;
  for (const char* question :
       {"What is the capital of Portugal?", "How do I bake bread?", "Tell me a joke",
        "Who won the world cup?", "What is the weather today?", "Write me a poem about the sea"}) {
    said += chat.answer(question).text.find("only know about") == std::string::npos ? 0 : 1;
  }
  EXPECT_GE(said, 3);
}

TEST(DemoModel, CompletesAQuestionWithoutAChatTemplate) {
  demo_chat chat({});
  const demo_chat::reply reply = chat.complete("Which port does the HTTP API use?");
  EXPECT_THAT(reply.text, HasSubstr("8000"));
  EXPECT_EQ(reply.finish, engine::finish_reason::stop);
}

TEST(DemoModel, GivesTheSameTokensOnOneTwoFourAndEightRanks) {
  for (const auto type : {kernels::dtype::float32, kernels::dtype::bfloat16}) {
    demo_chat alone({.tp_size = 1, .type = type});
    const auto expected = alone.answer("What happens when a rank dies?").token_ids;
    ASSERT_GT(expected.size(), 8U);
    for (const int size : {2, 4, 8}) {
      demo_chat chat({.tp_size = size, .type = type});
      EXPECT_EQ(chat.answer("What happens when a rank dies?").token_ids, expected) << size;
    }
  }
}

}  // namespace
}  // namespace troupe::models
