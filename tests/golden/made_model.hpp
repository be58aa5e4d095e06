// A model of our own making, wide enough that every tile and thread loop of the kernels turns more
// than once: for comparing runs with each other, not with Hugging Face.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace troupe::golden {

// A Qwen3ForCausalLM folder in the temporary directory; gone at the end of its scope.
class made_model {
 public:
  made_model()
      : path_(std::filesystem::path(testing::TempDir()) /
              ("troupe_made_model_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ / "config.json") << nlohmann::json{{"architectures", {"Qwen3ForCausalLM"}},
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

  // Uniform around zero with a variance that keeps activations near one; norms near one.
  void add(const std::string& name, const std::vector<std::int64_t>& shape) {
    const bool norm = shape.size() == 1;
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    const float reach = norm ? 0.3F : std::sqrt(6.0F / static_cast<float>(shape.back()));
    const std::size_t begin = data_.size();
    for (std::int64_t i = 0; i < count; ++i) {
      state_ = state_ * 6364136223846793005U + 1442695040888963407U;
      const float unit = static_cast<float>(state_ >> 40) * 0x1p-23F - 1.0F;
      const float value = (norm ? 1.0F : 0.0F) + reach * unit;
      std::uint32_t bits = 0;
      std::memcpy(&bits, &value, sizeof(bits));
      data_ += static_cast<char>((bits >> 16) & 0xff);
      data_ += static_cast<char>(bits >> 24);
    }
    header_[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
  }

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

  std::filesystem::path path_;
  std::uint64_t state_ = 20261121;
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

}  // namespace troupe::golden
