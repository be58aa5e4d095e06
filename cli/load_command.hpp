// troupe bench --url: a load generator against any OpenAI-compatible server.
#pragma once

#include <cstdint>
#include <string>

#include "cli/exit_code.hpp"

namespace troupe::cli {

struct load_flags {
  std::string url;    // http://host:port, or one that ends in /v1
  std::string model;  // empty: the first one that the server has
  std::string endpoint = "/v1/completions";
  std::string api_key_file;
  std::int64_t num_prompts = 1000;
  std::string request_rate = "inf";
  double burstiness = 1.0;
  std::int64_t max_concurrency = 0;  // 0: no bound
  std::string prompt_tokens = "512";
  std::string max_tokens = "128";
  std::int64_t prefix_tokens = 0;  // of each prompt, the same in all
  std::string trace;
  std::uint64_t seed = 0;
  std::int64_t timeout_s = 600;
  std::string goodput;
  std::string plot;
  std::string save_requests;
  std::string output = "text";
};

[[nodiscard]] exit_code run_load(const load_flags& flags);

}  // namespace troupe::cli
