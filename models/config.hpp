// config.json and generation_config.json of a Hugging Face folder, as plain values.
//
// Names are Hugging Face's own. Files written by transformers 4 (rope_theta, rope_scaling,
// torch_dtype at the top) and 5 (rope_parameters, dtype) give the same struct. Every field is
// checked here against the bounds below, so that later code may multiply sizes without overflow.
//
//   TROUPE_TRY(config, models::read_config("/models/Qwen3-0.6B"));
//   config.head_dim * config.num_attention_heads ...
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "models/model_folder.hpp"

namespace troupe::models {

// Bounds of what a config may ask for; wider than any published model, tight enough that a product
// of any four fits 64 bits.
struct config_limits {
  static constexpr std::int64_t hidden_size_max = 1 << 18;
  static constexpr std::int64_t num_hidden_layers_max = 1024;
  static constexpr std::int64_t num_attention_heads_max = 4096;
  static constexpr std::int64_t head_dim_max = 1024;
  static constexpr std::int64_t intermediate_size_max = 1 << 20;
  static constexpr std::int64_t vocab_size_max = 1 << 22;
  static constexpr std::int64_t max_position_embeddings_max = 1LL << 28;
  static constexpr double rope_theta_max = 1e12;
  static constexpr double rope_factor_max = 1e6;
  static constexpr std::size_t eos_token_ids_max = 1024;
  static constexpr std::size_t json_bytes_max = 4U << 20;
  static constexpr int json_depth_max = 64;
  static constexpr std::size_t modules_max = 16'384;  // of modules_to_not_convert
};

enum class rope_type : std::uint8_t { standard, linear, dynamic, llama3, yarn };

// Rotary scaling. Source: transformers modeling_rope_utils.py; fields keep its names.
struct rope_parameters {
  rope_type type = rope_type::standard;
  double rope_theta = 10000.0;
  double factor = 1.0;
  double partial_rotary_factor = 1.0;                 // refused unless 1
  std::int64_t original_max_position_embeddings = 0;  // filled in from max_position_embeddings
  // llama3
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // yarn
  std::optional<double> attention_factor;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;
};

enum class activation : std::uint8_t { silu, gelu_tanh, gelu };

// quantization_config with quant_method "fp8": a matrix X.weight may be stored as float8_e4m3, with
// X.weight_scale_inv [outputs / 128][inputs / 128], both rounded up; weight = float(code) * scale.
struct float8_quantization {
  std::vector<std::string> modules_to_not_convert;  // whole names, or their first or last parts

  // Whether transformers would store that matrix so: all but the embeddings and the list.
  [[nodiscard]] bool converts(std::string_view tensor) const;
};

struct model_config {
  std::string architecture;  // architectures[0], e.g. "Qwen3ForCausalLM"
  std::string model_type;
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  activation hidden_act = activation::silu;
  rope_parameters rope;
  bool qkv_bias = false;  // q_proj, k_proj, v_proj
  bool o_bias = false;    // o_proj
  bool mlp_bias = false;  // gate_proj, up_proj, down_proj
  bool tie_word_embeddings = false;
  // Tokens a query may look back, itself included; nullopt: all. One entry a layer.
  std::vector<std::optional<std::int64_t>> sliding_window;
  std::string dtype;  // "bfloat16", "float16", "float32", or empty when the file does not say
  std::optional<float8_quantization> quantization;
  // generation_config.json first, else config.json. Ids outside the vocabulary are left out: some
  // published files say -1 for "none", and such a token can never be chosen.
  std::vector<std::int32_t> eos_token_ids;
  std::optional<std::int32_t> bos_token_id;
};

// Reads `folder`/config.json and, where it exists, generation_config.json.
// Errors: not_found (no such folder or file), invalid_argument (the file and field that is wrong,
// and what is allowed), unimplemented (a feature named in the file that this build does not have).
[[nodiscard]] base::result<model_config> read_config(const model_folder& folder);

// The same from the files' text; `generation_config_json` may be empty. For tests and fuzzing.
[[nodiscard]] base::result<model_config> parse_config(std::string_view config_json,
                                                      std::string_view generation_config_json);

}  // namespace troupe::models
