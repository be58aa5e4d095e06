// A case of tests/golden/models: the model's folder and what Hugging Face says of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "models/checkpoint.hpp"
#include "models/config.hpp"

namespace troupe::golden {

// The value, or the end of this test with the error's line.
template <class T>
T must(base::result<T> of) {
  if (!of) throw std::runtime_error(of.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*of);
}

struct golden_prompt {
  std::vector<std::int32_t> prompt_ids;
  std::vector<std::int32_t> token_ids;  // greedy, the end of sequence ignored
  std::vector<double> logprobs;         // float32, one a token
  std::vector<std::vector<std::pair<std::int32_t, double>>> top;  // float32, best first
  std::optional<std::int64_t> stops_after;  // tokens until the end of sequence
  std::vector<double> bfloat16_logprobs;    // of the same tokens, by Hugging Face in bfloat16
  double bfloat16_logit_error_rms = 0.0;    // of that against float32
  double bfloat16_logit_error_max = 0.0;
};

struct golden_case {
  std::string name;
  std::filesystem::path folder;
  double logit_scale = 0.0;  // the largest absolute logit
  std::vector<golden_prompt> prompts;
};

inline std::filesystem::path models_folder() {
  return std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/golden/models";
}

// Every folder of tests/golden/models, sorted.
inline std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(models_folder())) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

inline golden_case read_case(const std::string& name) {
  golden_case read{.name = name, .folder = models_folder() / name, .prompts = {}};
  const auto expected = nlohmann::json::parse(read_text(read.folder / "expected.json"));
  read.logit_scale = expected.at("logit_scale");
  for (const auto& entry : expected.at("prompts")) {
    golden_prompt prompt;
    prompt.prompt_ids = entry.at("prompt_token_ids").get<std::vector<std::int32_t>>();
    prompt.token_ids = entry.at("token_ids").get<std::vector<std::int32_t>>();
    prompt.logprobs = entry.at("logprobs").get<std::vector<double>>();
    for (const auto& step : entry.at("top")) {
      auto& best = prompt.top.emplace_back();
      for (const auto& token : step) best.emplace_back(token.at(0), token.at(1));
    }
    if (!entry.at("stops_after").is_null()) prompt.stops_after = entry.at("stops_after");
    const auto& half = entry.at("bfloat16");
    prompt.bfloat16_logprobs = half.at("logprobs").get<std::vector<double>>();
    prompt.bfloat16_logit_error_rms = half.at("logit_error_rms");
    prompt.bfloat16_logit_error_max = half.at("logit_error_max");
    read.prompts.push_back(std::move(prompt));
  }
  return read;
}

}  // namespace troupe::golden
