// Chat templates against what transformers rendered (scripts/goldens_text_chat.py).
#include "models/text/chat_template.hpp"
#include "tests/text/golden_files.hpp"

namespace troupe::text {
namespace {

struct chat_case {
  json messages;
  json body;                          // add_generation_prompt, tools, documents, kwargs
  std::optional<std::string> values;  // kwargs as text, for integers that nlohmann would round
};

base::result<std::string> render(const chat_template& chat, const chat_case& request) {
  const auto field = [&](const char* name) -> std::optional<std::string> {
    return request.body.contains(name) ? std::optional(request.body[name].dump()) : std::nullopt;
  };
  const auto tools = field("tools");
  const auto documents = field("documents");
  const auto kwargs = request.values ? request.values : field("kwargs");
  render_options options;
  options.add_generation_prompt = request.body.value("add_generation_prompt", true);
  options.tools_json = tools;
  options.documents_json = documents;
  options.kwargs_json = kwargs;
  options.kwargs_allowed.push_back("v");
  options.now = {.year = 2026, .month = 3, .day = 7, .hour = 9, .minute = 5, .second = 3};
  return chat.render(request.messages.dump(), options);
}

// Compares with one golden: the text, or that it fails, with raise_exception's own words.
void expect_golden(const base::result<std::string>& found, const json& golden,
                   const std::string& what) {
  if (golden.contains("text")) {
    ASSERT_TRUE(found.has_value()) << what << "\n" << found.error().message;
    EXPECT_EQ(*found, golden["text"].get<std::string>()) << what;
    return;
  }
  ASSERT_FALSE(found.has_value()) << what << "\nmust fail, gave: " << *found;
  if (golden["fails"] == "raised") {
    EXPECT_EQ(found.error().code, base::error_code::invalid_argument) << what;
    EXPECT_NE(found.error().message.find(golden["message"].get<std::string>()), std::string::npos)
        << what << "\n"
        << found.error().message;
  }
  EXPECT_EQ(found.error().message.find('\n'), std::string::npos) << what;
}

std::string config() { return read_text(golden_folder() / "chat/specials.json"); }

class ChatGolden : public testing::TestWithParam<std::string> {};

TEST_P(ChatGolden, RendersAsTransformers) {
  const auto folder = golden_folder() / "chat/templates" / GetParam();
  const std::string source = read_text(folder / "chat_template.jinja");
  const auto chat =
      chat_template::from_files({.chat_template = source, .tokenizer_config_json = config()});
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  const json chats = read_json(golden_folder() / "chat/chats.json");
  std::size_t texts = 0;
  for (const json& row : read_json(folder / "cases.json")) {
    const auto found = render(
        *chat, {.messages = chats[row["chat"].get<std::string>()], .body = row, .values = {}});
    expect_golden(found, row["expected"], row.dump());
    texts += row["expected"].contains("text") ? 1 : 0;
  }
  EXPECT_GT(texts, 8u);
}

INSTANTIATE_TEST_SUITE_P(Styles, ChatGolden,
                         testing::ValuesIn(folders_in(golden_folder() / "chat/templates")),
                         [](const auto& style) { return style.param; });

TEST(ChatSnippets, MeanWhatPythonMeans) {
  const std::string values = R"({"v":)" + read_text(golden_folder() / "chat/values.json") + "}";
  const json chats = read_json(golden_folder() / "chat/chats.json");
  std::size_t texts = 0;
  for (const json& row : read_json(golden_folder() / "chat/snippets.json")) {
    const auto source = row["template"].get<std::string>();
    const auto chat =
        chat_template::from_files({.chat_template = source, .tokenizer_config_json = config()});
    if (!chat) {
      EXPECT_TRUE(row.contains("fails")) << source << "\n" << chat.error().message;
      EXPECT_NE(chat.error().message.find("line 1"), std::string::npos) << chat.error().message;
      continue;
    }
    const chat_case request = {.messages = chats["one"], .body = json::object(), .values = values};
    expect_golden(render(*chat, request), row, source);
    texts += row.contains("text") ? 1 : 0;
  }
  EXPECT_GT(texts, 400u);
}

}  // namespace
}  // namespace troupe::text
