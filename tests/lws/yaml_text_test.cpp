#include "lws/yaml_text.hpp"

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

namespace troupe::lws {
namespace {

using json = nlohmann::ordered_json;

TEST(YamlText, PutsCommentsAboveTheFieldTheySpeakOf) {
  json spec = {{"replicas", 2}, {"#", "Why.\nAnd how."}, {"policy", "None"}};
  spec["list"] = json::array({json{{"#", "The first."}, {"name", "a"}, {"port", 1}}});
  EXPECT_EQ(to_yaml({{"spec", spec}}),
            "spec:\n"
            "  replicas: 2\n"
            "  # Why.\n"
            "  # And how.\n"
            "  policy: None\n"
            "  list:\n"
            "  - # The first.\n"
            "    name: a\n"
            "    port: 1\n");
}

// Read again by a parser that is not ours.
TEST(YamlText, QuotesWhatWouldBeReadAsSomethingElse) {
  for (const char* text :
       {"true", "No",         "null", "~",        "",    "1",
        "0.5",  "1e3",        "-",    "---",      "- a", "# no",
        "a: b", "a #b",       "{}",   "*x",       "&x",  "!x",
        "%",    "@a",         "`",    "a\tb",     "\"",  "'",
        "0x10", "2026-01-01", "500m", "--flag=1", "a b", "metadata.labels['x/y']",
        "y",    "on",         "k:",   "\xc3\xa9"}) {
    const std::string yaml = to_yaml({{"key", text}, {"list", json::array({text})}});
    const YAML::Node read = YAML::Load(yaml);
    ASSERT_TRUE(read["key"].IsScalar()) << yaml;
    EXPECT_EQ(read["key"].as<std::string>(), text);
    EXPECT_EQ(read["list"][0].as<std::string>(), text);
    // A text that could be a number or a boolean is marked as one that is not ("!" in yaml-cpp).
    bool boolean = false;
    double number = 0;
    if (YAML::convert<bool>::decode(read["key"], boolean) ||
        YAML::convert<double>::decode(read["key"], number)) {
      EXPECT_EQ(read["key"].Tag(), "!") << yaml;
    }
  }
}

TEST(YamlText, KeepsTextsOfSeveralLinesAsBlocks) {
  const std::string pem = "-----BEGIN X-----\nabc=\n-----END X-----\n";
  const std::string yaml = to_yaml({{"tls.crt", pem}, {"after", 1}});
  EXPECT_NE(yaml.find("tls.crt: |\n  -----BEGIN X-----\n"), std::string::npos) << yaml;
  EXPECT_EQ(YAML::Load(yaml)["tls.crt"].as<std::string>(), pem);
}

TEST(YamlText, KeepsEmptyMapsAndLists) {
  EXPECT_EQ(to_yaml({{"a", json::object()}, {"b", json::array()}}), "a: {}\nb: []\n");
}

}  // namespace
}  // namespace troupe::lws
