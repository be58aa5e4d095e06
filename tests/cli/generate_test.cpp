#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.hpp"

namespace troupe::cli::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json golden(const std::string& name) {
  return json::parse(read_file(model(name) + "/expected.json"));
}

std::string join(const json& ids) {
  std::string text;
  for (const json& id : ids) {
    if (!text.empty()) text += ',';
    text += id.dump();
  }
  return text;
}

json generate(const std::string& name, const json& prompt, const std::vector<std::string>& more) {
  std::vector<std::string> words = {"generate",     model(name),    "--prompt-token-ids",
                                    join(prompt),   "--max-tokens", "64",
                                    "--ignore-eos", "--dtype",      "float32",
                                    "--output",     "json"};
  words.insert(words.end(), more.begin(), more.end());
  const outcome got = run(words);
  EXPECT_EQ(got.code, 0) << got.err;
  return json::parse(got.out);
}

TEST(Generate, GivesTheReferencesTokensInTheContractsJson) {
  const json expected = golden("qwen3_tied");
  const json& prompt = expected["prompts"][1];
  const json got = generate("qwen3_tied", prompt["prompt_token_ids"], {"--logprobs", "2"});
  EXPECT_EQ(got["prompt_token_ids"], prompt["prompt_token_ids"]);
  const json& choice = got["choices"][0];
  EXPECT_EQ(choice["index"], 0);
  EXPECT_EQ(choice["token_ids"], prompt["token_ids"]);
  EXPECT_EQ(choice["finish_reason"], "length");
  ASSERT_EQ(choice["logprobs"].size(), 64U);
  for (std::size_t i = 0; i < 64; ++i) {
    const json& entry = choice["logprobs"][i];
    EXPECT_EQ(entry["token_id"], choice["token_ids"][i]);
    EXPECT_EQ(entry["top"].size(), 2U);
    EXPECT_EQ(entry["top"][0],
              (json{{"token_id", entry["token_id"]}, {"logprob", entry["logprob"]}}))
        << "greedy takes the most likely token";
  }
  for (const char* name : {"load_s", "prefill_s", "decode_s"}) {
    EXPECT_GT(got["timings"][name].get<double>(), 0.0) << name;
  }
}

TEST(Generate, ChoicesAreDrawnApartAndRepeatable) {
  const json prompt = golden("llama_plain")["prompts"][1]["prompt_token_ids"];
  const std::vector<std::string> flags = {"--temperature", "1", "--seed", "7", "--n", "3"};
  const json first = generate("llama_plain", prompt, flags);
  const json again = generate("llama_plain", prompt, flags);
  ASSERT_EQ(first["choices"].size(), 3U);
  EXPECT_EQ(first["choices"], again["choices"]);
  EXPECT_EQ(first["seed"], 7);
  EXPECT_NE(first["choices"][0]["token_ids"], first["choices"][1]["token_ids"]);
  const json alone = generate("llama_plain", prompt, {"--temperature", "1", "--seed", "7"});
  EXPECT_EQ(alone["choices"][0], first["choices"][0]) << "a choice does not depend on the others";
}

TEST(Generate, DrawsASeedWhenNoneIsGivenAndTellsIt) {
  const json prompt = golden("llama_plain")["prompts"][1]["prompt_token_ids"];
  const json drawn = generate("llama_plain", prompt, {"--temperature", "1"});
  const json again =
      generate("llama_plain", prompt, {"--temperature", "1", "--seed", drawn["seed"].dump()});
  EXPECT_EQ(again["choices"], drawn["choices"]);
}

TEST(Generate, TextNeedsATokenizerAndSaysWhatToDo) {
  const outcome got = run({"generate", model("llama_plain"), "--prompt", "hello"});
  EXPECT_EQ(got.code, 3);
  EXPECT_THAT(got.err, HasSubstr("tokenizer.json"));
  EXPECT_EQ(got.out, "");
}

TEST(Generate, TooLittleCacheIsRefusedWithTheNumbers) {
  const auto with = [](const std::string& memory) {
    return run({"generate", model("llama_plain"), "--prompt-token-ids", "1,2,3", "--output", "json",
                "--max-tokens", "64", "--kv-cache-memory", memory});
  };
  const outcome none = with("64");
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, HasSubstr("--kv-cache-memory is 64 bytes; one block of 16 tokens takes"));
  const outcome few = with("24K");
  EXPECT_EQ(few.code, 1) << few.out;
  EXPECT_THAT(few.err, HasSubstr("67 positions does not fit the KV cache"));
  EXPECT_THAT(few.err, HasSubstr("[resource_exhausted]"));
  EXPECT_EQ(with("1M").code, 0);
  EXPECT_EQ(with("12XB").code, 2);
}

TEST(Inspect, PredictsTheBytesThatLoadingPacks) {
  const outcome got = run({"inspect", model("llama_plain"), "--output", "json"});
  ASSERT_EQ(got.code, 0) << got.err;
  const json report = json::parse(got.out);
  EXPECT_EQ(report["architecture"], "LlamaForCausalLM");
  ASSERT_EQ(report["layouts"].size(), 4U);
  const json& whole = report["layouts"][0];
  EXPECT_GT(whole["ranks"][0]["weight_bytes"].get<std::uint64_t>(), 0U);
  EXPECT_GT(whole["ranks"][0]["kv_bytes_per_token"].get<std::int64_t>(), 0);
}

TEST(Inspect, NamesTheLayoutsThatItRefuses) {
  const outcome got = run({"inspect", model("llama_5_heads"), "--output", "json"});
  ASSERT_EQ(got.code, 0) << got.err;
  const json report = json::parse(got.out);
  EXPECT_THAT(report["layouts"][3]["refused"].get<std::string>(), HasSubstr("5 query heads"));
}

TEST(Bench, MeasuresIntegerWeightsAgainstProductsOfTheirKind) {
  for (const char* dtype : {"int8", "int4"}) {
    const outcome got = run({"bench", model("llama_plain"), "--dtype", dtype, "--prompt-tokens",
                             "20", "--max-tokens", "5", "--repeat", "1", "--output", "json"});
    ASSERT_EQ(got.code, 0) << got.err;
    const json report = json::parse(got.out);
    EXPECT_GT(report["machine"]["matmul_peak_gflop_per_s"][dtype].get<double>(), 0.0);
    EXPECT_THAT(report["numerics"].get<std::string>(), HasSubstr("/" + std::string(dtype) + "/"));
  }
}

TEST(Bench, SaysWhatRoundingCosts) {
  const auto quality = [](const std::vector<std::string>& more) {
    std::vector<std::string> words{"bench", "demo",     "--quality", "--prompt-tokens",
                                   "100",   "--repeat", "2",         "--output",
                                   "json"};
    words.insert(words.end(), more.begin(), more.end());
    const outcome got = run(words);
    EXPECT_EQ(got.code, 0) << got.err;
    return json::parse(got.out);
  };
  const json int8 = quality({"--dtype", "int8"});
  const json int4 = quality({"--dtype", "int4"});
  EXPECT_EQ(int8["weights"], "int8");
  EXPECT_EQ(int8["reference"], "bfloat16");
  EXPECT_EQ(int8["tokens"], 2 * 99);
  EXPECT_EQ(int8["reference_perplexity"], int4["reference_perplexity"]);
  const auto error = [](const json& of) { return of["logprob_error"]["mean"].get<double>(); };
  EXPECT_GT(error(int8), 0.0);
  EXPECT_LT(error(int8), 0.5 * error(int4));
  EXPECT_GE(int8["same_likeliest_share"].get<double>(), int4["same_likeliest_share"].get<double>());
  EXPECT_EQ(quality({"--dtype", "bfloat16"})["reference"], "float32");
}

TEST(Bench, MeasuresAgainstTheMachineInTheSameRun) {
  const outcome got = run({"bench", model("llama_plain"), "--prompt-tokens", "20", "--max-tokens",
                           "5", "--repeat", "1", "--concurrency", "2", "--output", "json"});
  ASSERT_EQ(got.code, 0) << got.err;
  const json report = json::parse(got.out);
  EXPECT_GT(report["machine"]["read_bandwidth_gb_per_s"].get<double>(), 0.0);
  EXPECT_GT(report["machine"]["matmul_peak_gflop_per_s"]["bfloat16"].get<double>(), 0.0);
  for (const char* name :
       {"prefill_tokens_per_s", "decode_tokens_per_s", "time_to_first_token_ms"}) {
    EXPECT_GT(report[name]["median"].get<double>(), 0.0) << name;
    EXPECT_LE(report[name]["min"].get<double>(), report[name]["max"].get<double>()) << name;
  }
  EXPECT_GT(report["decode_read_bandwidth_share"].get<double>(), 0.0);
  EXPECT_GE(report["decode_roofline_share"].get<double>(),
            report["decode_read_bandwidth_share"].get<double>());
  EXPECT_GT(report["prefill_matmul_share"].get<double>(), 0.0);
  EXPECT_GT(report["peak_pss_bytes"][0].get<std::uint64_t>(), 0U);
}

}  // namespace
}  // namespace troupe::cli::test
