#include "models/config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "models/checkpoint_file.hpp"
#include "models/config_fields.hpp"
#include "models/config_quantization.hpp"
#include "models/config_rope.hpp"
#include "models/config_window.hpp"
#include "models/json_bounds.hpp"

namespace troupe::models {
namespace {

using limits = config_limits;
constexpr std::string_view origin = "models";

// What a file may leave out, per architecture, and which biases there are.
// Source: transformers models/<model_type>/configuration_<model_type>.py.
enum class bias_rule : std::uint8_t { never, qkv_always, from_config };

struct architecture {
  std::string_view name;
  std::string_view model_type;
  std::int64_t vocab_size;
  std::int64_t intermediate_size;
  std::int64_t num_key_value_heads;  // 0: num_attention_heads
  std::int64_t head_dim;             // 0: hidden_size / num_attention_heads
  std::int64_t max_position_embeddings;
  bias_rule attention_bias;
  bool has_mlp_bias;
};

constexpr std::array<architecture, 4> architectures = {{
    {"LlamaForCausalLM", "llama", 32000, 11008, 0, 0, 2048, bias_rule::from_config, true},
    {"MistralForCausalLM", "mistral", 32000, 14336, 8, 0, 131072, bias_rule::never, false},
    {"Qwen2ForCausalLM", "qwen2", 151936, 22016, 32, 0, 32768, bias_rule::qkv_always, false},
    {"Qwen3ForCausalLM", "qwen3", 151936, 22016, 32, 128, 32768, bias_rule::from_config, false},
}};
constexpr std::string_view architectures_known =
    "this build has LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM";

base::result<const architecture*> find_architecture(const config_fields& top) {
  TROUPE_TRY(names, top.texts("architectures", 16));
  TROUPE_TRY(model_type, top.text("model_type"));
  const auto unimplemented = base::error_code::unimplemented;
  if (names.empty() && model_type.empty()) {
    return top.wrong("architectures", architectures_known);
  }
  for (const architecture& known : architectures) {
    const bool named = names.empty() || names.front() == known.name;
    const bool typed = model_type.empty() || model_type == known.model_type;
    if (named && typed) return &known;
    if (named && !names.empty()) {
      return top.wrong("model_type", fmt::format("{} is \"{}\"", known.name, known.model_type));
    }
  }
  if (names.empty()) return top.wrong("model_type", architectures_known, unimplemented);
  return base::fail(unimplemented, origin,
                    fmt::format("{}: architecture {} is not implemented: {}", top.where(),
                                in_quotes(names.front()), architectures_known));
}

// Fields that change the maths and that this build would otherwise ignore.
base::result<void> refuse_features(const config_fields& top) {
  const auto unimplemented = base::error_code::unimplemented;
  for (const std::string_view name :
       {"attn_logit_softcapping", "final_logit_softcapping", "logit_softcapping", "logit_scale",
        "query_pre_attn_scalar", "clip_qkv", "attention_chunk_size", "per_layer_config"}) {
    if (top.has_value(name)) return top.wrong(name, "not implemented", unimplemented);
  }
  for (const std::string_view name :
       {"embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"}) {
    const nlohmann::json* value = top.find(name);
    if (value == nullptr || value->is_null()) continue;
    if (!value->is_number() || value->get<double>() != 1.0) {
      return top.wrong(name, "only 1 is implemented", unimplemented);
    }
  }
  for (const auto& [name, plain] : {std::pair<std::string_view, bool>{"is_causal", true},
                                    {"is_encoder_decoder", false},
                                    {"add_cross_attention", false},
                                    {"use_bidirectional_attention", false},
                                    {"alibi", false}}) {
    if (!top.has_value(name)) continue;
    TROUPE_TRY(value, top.boolean(name, plain));
    if (value != plain) return top.wrong(name, "not implemented", unimplemented);
  }
  return {};
}

base::result<void> read_heads(const config_fields& top, const architecture& known,
                              model_config& config) {
  TROUPE_TRY(heads, top.integer({.name = "num_attention_heads",
                                 .absent = 32,
                                 .max = limits::num_attention_heads_max}));
  const std::int64_t kv_absent = known.num_key_value_heads == 0 ? heads : known.num_key_value_heads;
  TROUPE_TRY(kv_heads, top.integer({.name = "num_key_value_heads",
                                    .absent = kv_absent,
                                    .null = heads,
                                    .max = limits::num_attention_heads_max}));
  if (heads % kv_heads != 0) {
    return top.wrong("num_attention_heads",
                     fmt::format("give a multiple of num_key_value_heads ({})", kv_heads));
  }
  // Transformers refuses a null head_dim where the class has a fixed default.
  const std::int64_t derived = std::max<std::int64_t>(1, config.hidden_size / heads);
  const bool fixed = known.head_dim != 0;
  if (!fixed && !top.has_value("head_dim") && config.hidden_size % heads != 0) {
    return top.wrong("head_dim", fmt::format("hidden_size ({}) is not a multiple of "
                                             "num_attention_heads ({}), so give head_dim",
                                             config.hidden_size, heads));
  }
  TROUPE_TRY(head_dim, top.integer({.name = "head_dim",
                                    .absent = fixed ? known.head_dim : derived,
                                    .null = fixed ? std::nullopt : std::optional(derived),
                                    .max = limits::head_dim_max}));
  if (head_dim % 2 != 0 || head_dim > limits::head_dim_max) {
    return base::fail(base::error_code::invalid_argument, origin,
                      fmt::format("{}: head_dim is {} (field \"head_dim\", or hidden_size / "
                                  "num_attention_heads): rotary embedding needs an even number "
                                  "from 2 to {}",
                                  top.where(), head_dim, limits::head_dim_max));
  }
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  return {};
}

base::result<void> read_sizes(const config_fields& top, const architecture& known,
                              model_config& config) {
  TROUPE_TRY(hidden,
             top.integer({.name = "hidden_size", .absent = 4096, .max = limits::hidden_size_max}));
  TROUPE_TRY(layers, top.integer({.name = "num_hidden_layers",
                                  .absent = 32,
                                  .max = limits::num_hidden_layers_max}));
  TROUPE_TRY(intermediate, top.integer({.name = "intermediate_size",
                                        .absent = known.intermediate_size,
                                        .max = limits::intermediate_size_max}));
  TROUPE_TRY(vocab, top.integer({.name = "vocab_size",
                                 .absent = known.vocab_size,
                                 .max = limits::vocab_size_max}));
  TROUPE_TRY(positions, top.integer({.name = "max_position_embeddings",
                                     .absent = known.max_position_embeddings,
                                     .max = limits::max_position_embeddings_max}));
  // 0 would divide by zero on a row of zeros; a norm of 1 and more is no epsilon.
  TROUPE_TRY(eps, top.number({.name = "rms_norm_eps", .absent = 1e-6, .min = 1e-20, .max = 1.0}));
  config.hidden_size = hidden;
  config.num_hidden_layers = layers;
  config.intermediate_size = intermediate;
  config.vocab_size = vocab;
  config.max_position_embeddings = positions;
  config.rms_norm_eps = eps;
  return read_heads(top, known, config);
}

base::result<void> read_switches(const config_fields& top, const architecture& known,
                                 model_config& config) {
  // A bias that the architecture does not have is ignored in transformers; its weights would be
  // ignored with it, so a file that asks for one is refused.
  TROUPE_TRY(attention_bias, top.boolean("attention_bias", false));
  TROUPE_TRY(mlp_bias, top.boolean("mlp_bias", false));
  if (attention_bias && known.attention_bias == bias_rule::never) {
    return top.wrong("attention_bias", fmt::format("{} has none", known.name));
  }
  if (mlp_bias && !known.has_mlp_bias) {
    return top.wrong("mlp_bias", fmt::format("{} has none", known.name));
  }
  const bool from_config = known.attention_bias == bias_rule::from_config && attention_bias;
  config.qkv_bias = known.attention_bias == bias_rule::qkv_always || from_config;
  config.o_bias = from_config;
  config.mlp_bias = mlp_bias;
  TROUPE_TRY(tied, top.boolean("tie_word_embeddings", false));
  config.tie_word_embeddings = tied;

  // Source: transformers activations.py, ACT2FN; the names beside gelu compute the same function.
  static constexpr std::array<std::pair<std::string_view, activation>, 8> names = {{
      {"silu", activation::silu},
      {"swish", activation::silu},
      {"gelu", activation::gelu},
      {"gelu_python", activation::gelu},
      {"gelu_new", activation::gelu_tanh},
      {"gelu_fast", activation::gelu_tanh},
      {"gelu_pytorch_tanh", activation::gelu_tanh},
      {"gelu_python_tanh", activation::gelu_tanh},
  }};
  if (!top.has("hidden_act")) return {};
  TROUPE_TRY(act, top.text("hidden_act"));
  const auto* it = std::ranges::find(names, act, &std::pair<std::string_view, activation>::first);
  if (it == names.end()) {
    return top.wrong("hidden_act", "this build has silu, gelu, gelu_new, gelu_pytorch_tanh",
                     base::error_code::unimplemented);
  }
  config.hidden_act = it->second;
  return {};
}

base::result<void> read_dtype(const config_fields& top, model_config& config) {
  // Where both names are there, transformers keeps the new one.
  const std::string_view name = top.has_value("dtype") ? "dtype" : "torch_dtype";
  TROUPE_TRY(text, top.text(name));
  if (!text.empty() && text != "bfloat16" && text != "float16" && text != "float32") {
    return top.wrong(name, "this build has bfloat16, float16, float32",
                     base::error_code::unimplemented);
  }
  config.dtype = text;
  return {};
}

base::result<std::vector<std::int32_t>> read_token_ids(const config_fields& fields,
                                                       std::string_view name,
                                                       std::int64_t vocab_size) {
  std::vector<std::int32_t> ids;
  if (!fields.has_value(name)) return ids;
  const nlohmann::json& value = *fields.find(name);
  const bool list = value.is_array();
  const std::size_t count = list ? value.size() : 1;
  const std::string allowed =
      fmt::format("give a token id from 0 to {}, null, or a list of at most {} of them",
                  vocab_size - 1, limits::eos_token_ids_max);
  if (count > limits::eos_token_ids_max) return fields.wrong(name, allowed);
  for (std::size_t i = 0; i < count; ++i) {
    const nlohmann::json& item = list ? value[i] : value;
    const auto id = as_integer(item);
    if (!id || *id < -1 || *id > INT32_MAX) return fields.wrong(name, allowed);
    if (*id < 0 || *id >= vocab_size) continue;
    const auto narrow = static_cast<std::int32_t>(*id);
    if (std::ranges::find(ids, narrow) == ids.end()) ids.push_back(narrow);
  }
  return ids;
}

base::result<void> read_special_tokens(const config_fields& top, const config_fields& generation,
                                       model_config& config) {
  const auto owner = [&](std::string_view name) -> const config_fields& {
    return generation.has(name) ? generation : top;
  };
  TROUPE_TRY(eos, read_token_ids(owner("eos_token_id"), "eos_token_id", config.vocab_size));
  TROUPE_TRY(bos, read_token_ids(owner("bos_token_id"), "bos_token_id", config.vocab_size));
  config.eos_token_ids = eos;
  if (!bos.empty()) config.bos_token_id = bos.front();
  return {};
}

struct named_text {
  std::string name;
  std::string_view text;
};

base::result<nlohmann::json> parse_object(const named_text& file) {
  TROUPE_TRY(root,
             parse_json(file.text,
                        {.bytes_max = limits::json_bytes_max, .depth_max = limits::json_depth_max},
                        file.name));
  if (!root.is_object()) {
    return base::fail(base::error_code::invalid_argument, origin,
                      fmt::format("{}: is {}, not a JSON object", file.name, described(root)));
  }
  return std::move(root);
}

base::result<model_config> parse_files(const named_text& config_file,
                                       const named_text& generation_file) {
  TROUPE_TRY(root, parse_object(config_file));
  nlohmann::json generation_root = nlohmann::json::object();
  if (!generation_file.text.empty()) {
    TROUPE_TRY(parsed, parse_object(generation_file));
    generation_root = std::move(parsed);
  }
  const config_fields top(root, config_file.name);
  const config_fields generation(generation_root, generation_file.name);
  TROUPE_TRY(known, find_architecture(top));
  model_config config;
  config.architecture = known->name;
  config.model_type = known->model_type;
  TROUPE_TRY_VOID(refuse_features(top));
  TROUPE_TRY_VOID(read_quantization(top, config));
  TROUPE_TRY_VOID(read_sizes(top, *known, config));
  TROUPE_TRY_VOID(read_switches(top, *known, config));
  TROUPE_TRY_VOID(read_dtype(top, config));
  TROUPE_TRY_VOID(read_sliding_window(top, config));
  TROUPE_TRY_VOID(read_rope(top, config));
  TROUPE_TRY_VOID(read_special_tokens(top, generation, config));
  return config;
}

}  // namespace

base::result<model_config> parse_config(std::string_view config_json,
                                        std::string_view generation_config_json) {
  return parse_files({"config.json", config_json},
                     {"generation_config.json", generation_config_json});
}

base::result<model_config> read_config(const model_folder& folder) {
  if (!folder.is_there()) {
    return base::fail(base::error_code::not_found, origin,
                      fmt::format("{}: no such folder: give a folder with config.json and "
                                  "safetensors files",
                                  folder.path().string()));
  }
  constexpr std::string_view config_name = "config.json";
  constexpr std::string_view generation_name = "generation_config.json";
  TROUPE_TRY(config_text, read_text_file(folder, config_name, limits::json_bytes_max));
  auto generation_text = read_text_file(folder, generation_name, limits::json_bytes_max);
  if (!generation_text && generation_text.error().code != base::error_code::not_found) {
    return tl::unexpected(generation_text.error());
  }
  if (!generation_text) generation_text = std::string();
  return parse_files({(folder / config_name).string(), config_text},
                     {(folder / generation_name).string(), *generation_text});
}

}  // namespace troupe::models
