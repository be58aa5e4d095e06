// A model of our own making, wide enough that every tile and thread loop of the kernels turns more
// than once: for comparing runs with each other, not with Hugging Face.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/bfloat16.hpp"
#include "kernels/float8.hpp"

namespace troupe::golden {

// How the layers' matrices are stored. dequantised_*: the values that float8 stands for, rounded to
// that type.
enum class made_weights : std::uint8_t {
  bfloat16,
  float8,
  dequantised_bfloat16,
  dequantised_float32
};

// A Qwen3ForCausalLM folder in the temporary directory; gone at the end of its scope.
class made_model {
 public:
  explicit made_model(made_weights stored = made_weights::bfloat16)
      : stored_(stored),
        path_(std::filesystem::path(testing::TempDir()) /
              ("troupe_made_model_" + std::to_string(::getpid()) + "_" +
               std::to_string(static_cast<int>(stored)))) {
    std::filesystem::create_directories(path_);
    nlohmann::json config = nlohmann::json{{"architectures", {"Qwen3ForCausalLM"}},
                                           {"model_type", "qwen3"},
                                           {"hidden_size", hidden},
                                           {"num_hidden_layers", layers},
                                           {"num_attention_heads", heads},
                                           {"num_key_value_heads", kv_heads},
                                           {"head_dim", head_dim},
                                           {"intermediate_size", intermediate},
                                           {"vocab_size", vocabulary},
                                           {"max_position_embeddings", 4096},
                                           {"rms_norm_eps", 1e-6},
                                           {"rope_theta", 10000.0},
                                           {"hidden_act", "silu"},
                                           {"tie_word_embeddings", false},
                                           {"torch_dtype", "bfloat16"},
                                           {"use_sliding_window", false},
                                           {"eos_token_id", nullptr}};
    if (stored_ == made_weights::float8) {
      config["quantization_config"] = {{"quant_method", "fp8"},
                                       {"fmt", "e4m3"},
                                       {"activation_scheme", "dynamic"},
                                       {"weight_block_size", {128, 128}},
                                       {"modules_to_not_convert", {kept_module}}};
    }
    std::ofstream(path_ / "config.json") << config;
    write_weights();
  }
  made_model(const made_model&) = delete;
  made_model& operator=(const made_model&) = delete;
  ~made_model() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  // Nothing divides by 8, 32 or 64 where it need not.
  static constexpr std::int64_t hidden = 328;
  static constexpr std::int64_t layers = 2;
  static constexpr std::int64_t heads = 9;
  static constexpr std::int64_t kv_heads = 3;
  static constexpr std::int64_t head_dim = 64;
  static constexpr std::int64_t intermediate = 872;
  static constexpr std::int64_t vocabulary = 1103;

  static constexpr const char* kept_module = "model.layers.1.mlp.up_proj";  // never float8

  // Uniform around zero with a variance that keeps activations near one; norms near one.
  void add(const std::string& name, const std::vector<std::int64_t>& shape) {
    const bool norm = shape.size() == 1;
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    const float reach = norm ? 0.3F : std::sqrt(6.0F / static_cast<float>(shape.back()));
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i) {
      state_ = state_ * 6364136223846793005U + 1442695040888963407U;
      const float unit = static_cast<float>(state_ >> 40) * 0x1p-23F - 1.0F;
      values.push_back((norm ? 1.0F : 0.0F) + reach * unit);
    }
    const bool converted = name.find("_proj") != std::string::npos && name != kept_weight();
    if (stored_ != made_weights::bfloat16 && converted) return add_quantised(name, shape, values);
    add_tensor(name, shape, "BF16", [&](std::size_t i) {
      return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(values[i]) >> 16);
    });
  }

  // A scale for each block of 128 x 128, from its largest value, a little different from block to
  // block; codes of what remains.
  void add_quantised(const std::string& name, const std::vector<std::int64_t>& shape,
                     std::vector<float>& values) {
    const std::int64_t row_blocks = (shape[0] + 127) / 128;
    const std::int64_t column_blocks = (shape[1] + 127) / 128;
    std::vector<float> scales(static_cast<std::size_t>(row_blocks * column_blocks), 0.0F);
    const auto scale_of = [&](std::size_t i) -> float& {
      const auto row = static_cast<std::int64_t>(i) / shape[1];
      const auto column = static_cast<std::int64_t>(i) % shape[1];
      return scales[static_cast<std::size_t>(row / 128 * column_blocks + column / 128)];
    };
    for (std::size_t i = 0; i < values.size(); ++i) {
      scale_of(i) = std::max(scale_of(i), std::abs(values[i]) / 440.0F);
    }
    for (std::size_t block = 0; block < scales.size(); ++block) {
      scales[block] *= 1.0F + 0.125F * static_cast<float>(block % 5);
    }
    std::vector<std::uint8_t> codes(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      codes[i] = kernels::to_float8_towards_zero(values[i] / scale_of(i));
      values[i] = kernels::from_float8(codes[i]) * scale_of(i);
    }
    if (stored_ == made_weights::float8) {
      add_tensor(name, shape, "F8_E4M3", [&](std::size_t i) { return codes[i]; });
      add_tensor(name + "_scale_inv", {row_blocks, column_blocks}, "F32",
                 [&](std::size_t i) { return scales[i]; });
    } else if (stored_ == made_weights::dequantised_float32) {
      add_tensor(name, shape, "F32", [&](std::size_t i) { return values[i]; });
    } else {
      add_tensor(name, shape, "BF16",
                 [&](std::size_t i) { return kernels::to_bfloat16(values[i]); });
    }
  }

  template <class Element>
  void add_tensor(const std::string& name, const std::vector<std::int64_t>& shape,
                  const char* dtype, const Element& element) {
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    const std::size_t begin = data_.size();
    for (std::size_t i = 0; i < count; ++i) {
      const auto value = element(i);
      data_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
  }
  static std::string kept_weight() { return std::string(kept_module) + ".weight"; }

  void write_weights() {
    add("model.embed_tokens.weight", {vocabulary, hidden});
    add("lm_head.weight", {vocabulary, hidden});
    add("model.norm.weight", {hidden});
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(prefix + "input_layernorm.weight", {hidden});
      add(prefix + "post_attention_layernorm.weight", {hidden});
      add(prefix + "self_attn.q_proj.weight", {heads * head_dim, hidden});
      add(prefix + "self_attn.k_proj.weight", {kv_heads * head_dim, hidden});
      add(prefix + "self_attn.v_proj.weight", {kv_heads * head_dim, hidden});
      add(prefix + "self_attn.o_proj.weight", {hidden, heads * head_dim});
      add(prefix + "self_attn.q_norm.weight", {head_dim});
      add(prefix + "self_attn.k_norm.weight", {head_dim});
      add(prefix + "mlp.gate_proj.weight", {intermediate, hidden});
      add(prefix + "mlp.up_proj.weight", {intermediate, hidden});
      add(prefix + "mlp.down_proj.weight", {hidden, intermediate});
    }
    const std::string header = header_.dump();
    std::ofstream file(path_ / "model.safetensors", std::ios::binary);
    for (int i = 0; i < 8; ++i) {
      file << static_cast<char>((static_cast<std::uint64_t>(header.size()) >> (8 * i)) & 0xff);
    }
    file << header << data_;
    data_ = {};
  }

  made_weights stored_;
  std::filesystem::path path_;
  std::uint64_t state_ = 20261121;
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

}  // namespace troupe::golden
