#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/cli/program.hpp"

namespace troupe::cli::test {
namespace {

using testing::HasSubstr;

// One line, the program's or the command's name in front, a stable code at its end.
void expect_one_line(const outcome& got, int code, const std::string& text,
                     const std::string& error_code = "invalid_argument") {
  EXPECT_EQ(got.code, code) << got.err;
  EXPECT_EQ(got.out, "");
  EXPECT_EQ(got.err, text + " [" + error_code + "]\n");
}

TEST(Usage, UnknownFlagNamesTheNearestOne) {
  expect_one_line(
      run({"generate", model("llama_plain"), "--prompt-token-ids", "1", "--max-token=3"}), 2,
      "troupe generate: unknown flag --max-token; did you mean --max-tokens?");
}

TEST(Usage, UnknownCommandNamesTheNearestOne) {
  expect_one_line(run({"generat"}), 2,
                  "troupe: unknown command \"generat\"; did you mean \"generate\"?");
}

TEST(Usage, ImpossibleValueIsRefusedWithItsFlag) {
  const outcome got =
      run({"generate", model("llama_plain"), "--prompt-token-ids", "1", "--temperature", "2.5"});
  EXPECT_EQ(got.code, 2);
  EXPECT_THAT(got.err, HasSubstr("--temperature"));
  EXPECT_THAT(got.err, HasSubstr("2.5"));
}

TEST(Usage, ExactlyOnePromptIsAsked) {
  const std::string line =
      "troupe generate: give exactly one of --prompt, --prompt-file and --prompt-token-ids; there ";
  expect_one_line(run({"generate", model("llama_plain")}), 2, line + "is none");
  expect_one_line(
      run({"generate", model("llama_plain"), "--prompt", "a", "--prompt-token-ids", "1"}), 2,
      line + "are several");
  const temporary_folder folder;
  const std::string file = folder.write("run.yaml", "prompt-token-ids: 1,2\nmax-tokens: 2\n");
  EXPECT_EQ(run({"generate", model("llama_plain"), "--config", file, "--output", "json"}).code, 0);
  EXPECT_EQ(run({"generate", model("llama_plain"), "--output", "json"},
                {"TROUPE_PROMPT_TOKEN_IDS=1,2", "TROUPE_MAX_TOKENS=2"})
                .code,
            0);
}

TEST(Usage, MalformedTokenIdsSayWhere) {
  expect_one_line(
      run({"generate", model("llama_plain"), "--output", "json", "--prompt-token-ids", "1,x"}), 2,
      "troupe: --prompt-token-ids: not a list like 1,2,3 at character 3");
}

TEST(Usage, TokenIdOutsideTheVocabularyIsRefused) {
  const outcome got = run(
      {"generate", model("llama_plain"), "--output", "json", "--prompt-token-ids", "1,99999999"});
  EXPECT_EQ(got.code, 2);
  EXPECT_THAT(got.err, HasSubstr("token id 99999999 at position 1"));
}

TEST(Usage, MissingFolderIsRefusedInput) {
  const outcome got = run({"inspect", "no/such/folder"});
  EXPECT_EQ(got.code, 3);
  EXPECT_THAT(got.err, HasSubstr("no/such/folder"));
  EXPECT_THAT(got.err, HasSubstr("[not_found]"));
}

TEST(Usage, KnownButUnbuiltChoicesSaySo) {
  const outcome got = run({"inspect", model("llama_plain"), "--dtype", "int8", "--device", "cuda"});
  EXPECT_EQ(got.code, 3);
  EXPECT_THAT(got.err, HasSubstr("--dtype int8 is computed on the CPU only"));
  EXPECT_THAT(got.err, HasSubstr("[unimplemented]"));
}

TEST(Usage, IntegerWeightsAreCountedAsTheyWillBe) {
  const auto bytes_of = [](const char* dtype) {
    const outcome got = run({"inspect", "demo", "--dtype", dtype, "--output", "json"});
    EXPECT_EQ(got.code, 0) << got.err;
    const auto out = nlohmann::json::parse(got.out);
    EXPECT_EQ(out.at("dtype"), dtype);
    return out.at("layouts").at(0).at("ranks").at(0).at("weight_bytes").get<double>();
  };
  EXPECT_LT(bytes_of("int8"), 0.62 * bytes_of("bfloat16"));
  EXPECT_LT(bytes_of("int4"), 0.7 * bytes_of("int8"));
}

TEST(Usage, ARouterSaysWhatItIsMissing) {
  for (const auto& [words, text] : std::vector<std::pair<std::vector<std::string>, const char*>>{
           {{}, "no gangs: give --gang URL"},
           {{"--gang", "host:8000"}, "'host:8000' is no http:// or https:// URL"},
           {{"--gang", "http://host/v1"}, "without a path"},
           {{"--gang-dns", "a b"}, "has a character that a URL cannot have"},
           {{"--gang-selector", "a=b"}, "this is no pod of a cluster"},
           {{"--gang", "http://h", "--host", "0.0.0.0"}, "give --api-key-file"},
           {{"--gang", "http://h", "--polcy", "x"}, "--policy"}}) {
    std::vector<std::string> all = {"router", "--port", "0"};
    all.insert(all.end(), words.begin(), words.end());
    const outcome got = run(all);
    EXPECT_EQ(got.code, words.empty() || words[0] != "--gang-selector" ? 2 : 1) << text;
    EXPECT_THAT(got.err, HasSubstr(text));
    EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
  }
}

TEST(Usage, HelpShowsDefaultsAndSucceeds) {
  const outcome got = run({"generate", "--help"});
  EXPECT_EQ(got.code, 0);
  EXPECT_THAT(got.out, HasSubstr("--max-num-batched-tokens"));
  EXPECT_THAT(got.out, HasSubstr("TROUPE_MAX_TOKENS"));
  EXPECT_EQ(got.err, "");
}

std::size_t token_count(const outcome& got) {
  const std::size_t from = got.out.find("\"token_ids\":[", got.out.find("choices"));
  const std::size_t to = got.out.find(']', from);
  return 1 + static_cast<std::size_t>(std::count(got.out.begin() + static_cast<long>(from),
                                                 got.out.begin() + static_cast<long>(to), ','));
}

TEST(Usage, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const temporary_folder folder;
  const std::string file = folder.write("run.yaml", "max-tokens: 3\nignore-eos: true\n");
  std::vector<std::string> words = {
      "generate", model("llama_plain"), "--output", "json", "--prompt-token-ids",
      "1,2,3",    "--config",           file};
  EXPECT_EQ(token_count(run(words)), 3U);
  EXPECT_EQ(token_count(run(words, {"TROUPE_MAX_TOKENS=4"})), 4U);
  words.insert(words.end(), {"--max-tokens", "5"});
  EXPECT_EQ(token_count(run(words, {"TROUPE_MAX_TOKENS=4"})), 5U);
}

TEST(Usage, UnknownKeyInTheFileNamesTheNearestOne) {
  const temporary_folder folder;
  const std::string file = folder.write("run.yaml", "max-tokns: 3\n");
  expect_one_line(
      run({"generate", model("llama_plain"), "--prompt-token-ids", "1", "--config", file}), 2,
      "troupe generate: unknown key \"max-tokns\" in the --config file; did you mean "
      "\"max-tokens\"?");
}

TEST(Usage, KeyThatIsNoNameIsRefused) {
  const temporary_folder folder;
  const std::string file = folder.write("run.yaml", "[a, b]: 3\n");
  const outcome got =
      run({"generate", model("llama_plain"), "--prompt-token-ids", "1", "--config", file});
  EXPECT_EQ(got.code, 2) << got.err;
  EXPECT_THAT(got.err, HasSubstr("--config: a key is not a flag's name"));
}

TEST(Usage, FileThatIsNotThereIsNamedWithItsFlag) {
  const outcome config = run(
      {"generate", model("llama_plain"), "--prompt-token-ids", "1", "--config", "no/such.yaml"});
  EXPECT_EQ(config.code, 2);
  EXPECT_THAT(config.err, HasSubstr("--config: cannot open no/such.yaml"));
}

TEST(Usage, FileThatIsNotYamlIsRefused) {
  const temporary_folder folder;
  const std::string file = folder.write("run.yaml", "max-tokens: [1\n");
  const outcome got =
      run({"generate", model("llama_plain"), "--prompt-token-ids", "1", "--config", file});
  EXPECT_EQ(got.code, 2);
  EXPECT_THAT(got.err, HasSubstr("--config: not YAML"));
}

}  // namespace
}  // namespace troupe::cli::test
