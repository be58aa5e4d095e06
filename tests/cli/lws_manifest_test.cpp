#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "tests/cli/program.hpp"

namespace troupe::cli::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<std::string> with(std::vector<std::string> more) {
  std::vector<std::string> words = {
      "lws", "manifest", "demo", "--name", "llm", "--image", "example.invalid/troupe:1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::vector<std::string> arguments(const std::string& yaml, const char* which) {
  for (const YAML::Node& document : YAML::LoadAll(yaml)) {
    if (document["kind"].as<std::string>() != "LeaderWorkerSet") continue;
    return document["spec"]["leaderWorkerTemplate"][which]["spec"]["containers"][0]["args"]
        .as<std::vector<std::string>>();
  }
  return {};
}

TEST(LwsManifest, SaysOnStderrWhichSizesItChoseAndWhy) {
  const outcome got = run(with({"--nodes", "4"}));
  ASSERT_EQ(got.code, 0) << got.err;
  EXPECT_THAT(got.err, HasSubstr("--tensor-parallel-size 4 --pipeline-parallel-size 1 (one rank"));
  EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1);
}

// The pods would take these words: they are those of `troupe serve`, which knows no others.
TEST(LwsManifest, HandsOnWhatServeIsGiven) {
  const outcome got =
      run(with({"--max-num-seqs", "5", "--dtype", "float32", "--kv-cache-memory", "64M"}));
  ASSERT_EQ(got.code, 0) << got.err;
  std::vector<std::string> words = arguments(got.out, "workerTemplate");
  for (const char* word : {"--max-num-seqs=5", "--dtype=float32", "--kv-cache-memory=67108864"}) {
    EXPECT_EQ(std::count(words.begin(), words.end(), word), 1) << word;
  }
  EXPECT_EQ(words, arguments(got.out, "leaderTemplate"));
  words.emplace_back("--help");
  const outcome parsed = run(words);
  EXPECT_EQ(parsed.code, 0) << parsed.err;
}

// All models are mounted at one place, and clients ask for them by name.
TEST(LwsManifest, NamesAMountedModelAfterItsFolder) {
  const auto names = [](const outcome& got) {
    std::vector<std::string> found;
    for (const std::string& word : arguments(got.out, "leaderTemplate")) {
      if (word.starts_with("--served-model-name")) found.push_back(word);
    }
    return found;
  };
  std::vector<std::string> words = {
      "lws",     "manifest", model("llama_plain"), "--name",     "llm",
      "--image", "i",        "--model-source",     "pvc:weights"};
  const outcome mounted = run(words);
  ASSERT_EQ(mounted.code, 0) << mounted.err;
  EXPECT_EQ(names(mounted), std::vector<std::string>{"--served-model-name=llama_plain"});
  words.insert(words.end(), {"--served-model-name", "mine"});
  EXPECT_EQ(names(run(words)), std::vector<std::string>{"--served-model-name=mine"});
  EXPECT_TRUE(names(run(with({}))).empty());
}

TEST(LwsManifest, AsksForMoreMemoryWhereThereIsMoreToHold) {
  const auto memory = [](const outcome& got) {
    const auto at = got.out.find("memory: \"");
    return at == std::string::npos ? 0 : std::atoi(got.out.c_str() + at + 9);
  };
  const int small = memory(run(with({"--kv-cache-memory", "64M"})));
  EXPECT_GT(small, 64);
  EXPECT_EQ(memory(run(with({"--kv-cache-memory", "164M"}))), small + 100);
  // Two ranks a pod have two caches.
  const int both = memory(
      run(with({"--kv-cache-memory", "164M", "--nodes", "1", "--tensor-parallel-size", "2"})));
  EXPECT_GT(both, small + 200);
}

// More sequences than fit into the largest cache it would ask for: the pods stay of a size.
TEST(LwsManifest, BoundsTheCacheThatNobodyAskedFor) {
  const auto cache = [](const outcome& got) {
    const auto at = got.out.find("--kv-cache-memory=");
    return at == std::string::npos ? 0 : std::atoi(got.out.c_str() + at + 18);
  };
  const int few = cache(run(with({"--max-num-seqs", "2"})));
  const int usual = cache(run(with({"--max-num-seqs", "16"})));
  const int many = cache(run(with({"--max-num-seqs", "1024", "--dtype", "float32"})));
  EXPECT_GT(few, 0);
  EXPECT_GT(usual, few);
  EXPECT_GT(many, usual);
  EXPECT_EQ(many, 4097);  // 4 GiB, where 1,024 sequences of the demo would take 5
}

TEST(LwsManifest, LeavesTheCacheOfGpusToServe) {
  const outcome got = run(with({"--gpus", "1"}));
  ASSERT_EQ(got.code, 0) << got.err;
  EXPECT_THAT(got.out, HasSubstr("nvidia.com/gpu: \"1\""));
  EXPECT_THAT(got.out, testing::Not(HasSubstr("--kv-cache-memory")));
}

TEST(LwsManifest, WritesAFolderForKustomize) {
  const temporary_folder folder;
  const fs::path out = folder.path() / "llm";
  const outcome got = run(with({"--output-dir", out.string(), "--secrets", "generated"}));
  ASSERT_EQ(got.code, 0) << got.err;
  EXPECT_EQ(got.out, "");
  std::set<std::string> there;
  for (const auto& entry : fs::directory_iterator(out)) there.insert(entry.path().filename());
  const auto listed = YAML::LoadFile((out / "kustomization.yaml").string())["resources"]
                          .as<std::vector<std::string>>();
  there.erase("kustomization.yaml");
  EXPECT_EQ(std::set<std::string>(listed.begin(), listed.end()), there);
  const auto secrets = fs::status(out / "secrets.yaml").permissions();
  EXPECT_EQ(secrets & (fs::perms::group_all | fs::perms::others_all), fs::perms::none);
}

// Each run draws its own, and the API takes the key.
TEST(LwsManifest, DrawsNewSecrets) {
  const std::string first = run(with({"--secrets", "generated"})).out;
  const std::string second = run(with({"--secrets", "generated"})).out;
  const auto keys = [](const std::string& yaml) {
    return YAML::LoadAll(yaml).front()["stringData"]["keys"].as<std::string>();
  };
  EXPECT_NE(keys(first), keys(second));
  EXPECT_GE(keys(first).size(), 64U);
}

TEST(LwsManifest, RefusesAModelThatPodsDoNotHave) {
  const outcome got =
      run({"lws", "manifest", model("llama_plain"), "--name", "llm", "--image", "x"});
  EXPECT_EQ(got.code, 3);
  EXPECT_THAT(got.err, HasSubstr("--model-source: pods do not have the folder"));
}

TEST(LwsManifest, RefusesInOneLineWithThePath) {
  const outcome got = run(with({"--startup-policy", "LeaderReady"}));
  EXPECT_EQ(got.code, 3);
  EXPECT_THAT(got.err, testing::StartsWith("troupe: spec.startupPolicy: "));
  EXPECT_THAT(got.err, testing::EndsWith(" [invalid_argument]\n"));
  EXPECT_EQ(got.out, "");
}

TEST(LwsManifest, NamesTheNearestCommand) {
  EXPECT_EQ(run({"lws", "manifst"}).err,
            "troupe lws: unknown command \"manifst\"; did you mean \"manifest\"? "
            "[invalid_argument]\n");
  EXPECT_EQ(run({"lws", "manifest", "demo", "--imag", "x"}).err,
            "troupe lws manifest: unknown flag --imag; did you mean --image? "
            "[invalid_argument]\n");
}

TEST(GroupEnvironment, ThatIsNoGroupIsWrongUsageOfServe) {
  const outcome got = run({"serve", "demo"}, {"LWS_GROUP_SIZE=two"});
  EXPECT_EQ(got.code, 2);
  EXPECT_EQ(got.err,
            "troupe: LWS_GROUP_SIZE is \"two\", wanted: a number from 1 to 64 "
            "[invalid_argument]\n");
}

}  // namespace
}  // namespace troupe::cli::test
