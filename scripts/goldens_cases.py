"""The model cases of scripts/goldens: what each is for, its shape and its seed.

A seed is part of the case: it was chosen (goldens_models.py --find-seeds) so that the reference
decides every token by a clear margin and does not fall into a loop. Changing a shape means
finding a new seed.
"""

import dataclasses

LENGTHS = (1, 13, 45)  # 45 + 64 generated tokens cross several blocks of 16
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden folder.

    contrasts: config changes that must visibly change the output; a golden that cannot tell a
    feature from its absence proves nothing.
    old: None for no config_old.json, else fields of it that differ from config.json.
    old_rope_key: its name of the scaling type. drop_old: fields such old files did not have.
    stop: how eos_token_id is written (see goldens_models.py); None leaves the id of the shape.
    """

    name: str
    about: str
    seed: int
    model_type: str
    config: dict
    dtype: str = "bfloat16"
    lengths: tuple = LENGTHS
    contrasts: tuple = ()
    old: dict | None = None
    old_rope_key: str = "rope_type"
    drop_old: tuple = ()
    stop: str | None = None
    shard_bytes: int | None = None


def shape(hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, **more):
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "intermediate_size": intermediate, "vocab_size": vocab,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "rope_parameters": dict(DEFAULT_ROPE), "bos_token_id": 0, "eos_token_id": 1,
        "hidden_act": "silu", **more}


def rope(rope_type, **more):
    return {"rope_type": rope_type, "rope_theta": 10000.0, **more}


NO_SCALING = {"rope_parameters": DEFAULT_ROPE}
TO_WINDOW_OFF = {"use_sliding_window": False, "sliding_window": None, "layer_types": None}

LLAMA = [
    Case("llama_plain", "the plain architecture, 8 heads over 4 KV heads, 3 layers", 2, "llama",
         shape(64, 3, 8, 4, 8, 80, 256), old={}, drop_old=("head_dim",), stop="number"),
    Case("llama_rope_linear", "rope scaling linear; old spelling with 'type'", 1, "llama",
         shape(48, 2, 8, 2, 8, 100, 250, rope_parameters=rope("linear", factor=4.0)),
         contrasts=(NO_SCALING,), old={}, old_rope_key="type"),
    Case("llama_rope_dynamic",
         "rope scaling dynamic: prompts below, exactly at and beyond the original maximum of 48",
         1, "llama",
         shape(48, 2, 4, 2, 16, 100, 250, max_position_embeddings=48,
               rope_parameters=rope("dynamic", factor=4.0)),
         lengths=(13, 48, 61), contrasts=(NO_SCALING,), old={}, old_rope_key="type"),
    Case("llama_rope_llama3", "rope scaling llama3; two end-of-sequence ids", 1, "llama",
         shape(48, 2, 4, 2, 32, 64, 250, max_position_embeddings=256,
               rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0,
                                    high_freq_factor=4.0, original_max_position_embeddings=32)),
         contrasts=(NO_SCALING,), old={}, stop="list"),
    Case("llama_rope_yarn", "rope scaling yarn, attention factor derived from factor", 2, "llama",
         shape(48, 2, 4, 2, 32, 64, 250, max_position_embeddings=256,
               rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=32)),
         contrasts=(NO_SCALING,), old={}, old_rope_key="type"),
    Case("llama_rope_yarn_attention_factor",
         "rope scaling yarn with attention_factor, beta_fast and beta_slow given", 1, "llama",
         shape(48, 2, 4, 4, 24, 64, 250, max_position_embeddings=256,
               rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=32,
                                    attention_factor=1.3, beta_fast=16.0, beta_slow=2.0)),
         contrasts=(NO_SCALING, {"rope_parameters": rope(
             "yarn", factor=8.0, original_max_position_embeddings=32, attention_factor=1.3)})),
    Case("llama_rope_yarn_mscale",
         "rope scaling yarn with mscale and mscale_all_dim, range not truncated", 1, "llama",
         shape(48, 2, 4, 1, 32, 64, 250, max_position_embeddings=256,
               rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=32,
                                    mscale=1.0, mscale_all_dim=0.7, truncate=False)),
         contrasts=(NO_SCALING, {"rope_parameters": rope(
             "yarn", factor=8.0, original_max_position_embeddings=32, mscale=1.0,
             mscale_all_dim=0.7)}, {"rope_parameters": rope(
                 "yarn", factor=8.0, original_max_position_embeddings=32, truncate=False)})),
    Case("llama_biases", "biases on every attention and MLP projection", 4, "llama",
         shape(64, 2, 8, 2, 8, 80, 251, attention_bias=True, mlp_bias=True),
         contrasts=({"attention_bias": False}, {"mlp_bias": False}), old={}),
    Case("llama_tied", "tied embeddings, vocabulary 333, stored as F16", 2, "llama",
         shape(64, 3, 8, 4, 8, 80, 333, tie_word_embeddings=True), dtype="float16", old={},
         stop="null"),
    Case("llama_head_dim_20", "head_dim 20 with hidden 72 and 6 heads; vocabulary 201", 1, "llama",
         shape(72, 2, 6, 3, 20, 50, 201), old={}),
    Case("llama_group_3", "12 heads over 4 KV heads", 5, "llama",
         shape(48, 2, 12, 4, 8, 96, 257)),
    Case("llama_group_7", "7 heads over one KV head, intermediate 173", 1, "llama",
         shape(56, 2, 7, 1, 8, 173, 300)),
    Case("llama_14_heads_2_kv", "14 heads over 2 KV heads, vocabulary 500", 2, "llama",
         shape(56, 2, 14, 2, 8, 100, 310)),
    Case("llama_5_heads", "5 heads (fewer than 8 runs), each with its own KV head, F32", 1, "llama",
         shape(40, 2, 5, 5, 8, 75, 210), dtype="float32", old={},
         drop_old=("head_dim", "num_key_value_heads")),
    Case("llama_sharded", "10 heads over 5 KV heads, 4 layers, in many files with an index", 1,
         "llama", shape(60, 4, 10, 5, 6, 64, 230), shard_bytes=32 * 1024),
    Case("llama_gelu_tanh", "hidden_act gelu_pytorch_tanh", 1, "llama",
         shape(48, 2, 8, 8, 6, 96, 300, hidden_act="gelu_pytorch_tanh"),
         contrasts=({"hidden_act": "silu"}, {"hidden_act": "gelu"})),
    Case("llama_gelu", "hidden_act gelu (by the error function)", 1, "llama",
         shape(48, 2, 8, 8, 6, 96, 300, hidden_act="gelu"),
         contrasts=({"hidden_act": "silu"},)),
]

MISTRAL = [
    Case("mistral_window_7", "sliding window of 7, shorter than a block and the prompt", 1,
         "mistral", shape(48, 3, 8, 2, 8, 96, 250, sliding_window=7),
         contrasts=({"sliding_window": None}, {"sliding_window": 8}), old={}),
    Case("mistral_window_24", "sliding window of 24: one and a half blocks", 1,
         "mistral", shape(48, 2, 6, 2, 16, 96, 300, sliding_window=24),
         contrasts=({"sliding_window": None}, {"sliding_window": 25}), stop="generation_config"),
    Case("mistral_no_window", "no sliding window; head_dim 12 with hidden 64 and 8 heads", 4,
         "mistral", shape(48, 2, 8, 4, 12, 80, 250, sliding_window=None), old={}),
]

QWEN2 = [
    Case("qwen2_untied", "biases on q, k and v only; own output matrix", 1, "qwen2",
         shape(64, 2, 8, 2, None, 100, 250, rms_norm_eps=1e-6, use_sliding_window=False)),
    Case("qwen2_tied", "tied, 14 heads over 2 KV heads; the old file names an unused window", 4,
         "qwen2", shape(56, 2, 14, 2, None, 120, 410, rms_norm_eps=1e-6, tie_word_embeddings=True,
                        use_sliding_window=False),
         old={"sliding_window": 8, "max_window_layers": 1}),
    Case("qwen2_window_mixed", "sliding window of 12 from layer 2 of 4 on", 2, "qwen2",
         shape(48, 4, 6, 2, None, 64, 250, rms_norm_eps=1e-6, use_sliding_window=True,
               sliding_window=12, max_window_layers=2),
         contrasts=(TO_WINDOW_OFF, {"layer_types": ["sliding_attention"] * 4}), old={}),
]

QWEN3 = [
    Case("qwen3_tied", "q and k norms, head_dim 16 with hidden 64 and 8 heads, tied", 1, "qwen3",
         shape(64, 3, 8, 4, 16, 64, 290, rms_norm_eps=1e-6, tie_word_embeddings=True,
               use_sliding_window=False), old={"sliding_window": 4, "max_window_layers": 0},
         stop="number"),
    Case("qwen3_untied", "as Qwen3-8B: own output matrix, group size 4", 4, "qwen3",
         shape(64, 2, 8, 2, 16, 64, 250, rms_norm_eps=1e-6, use_sliding_window=False)),
    Case("qwen3_window_mixed", "sliding window of 20 from layer 1 of 3 on", 1, "qwen3",
         shape(48, 3, 8, 4, 12, 64, 250, rms_norm_eps=1e-6, use_sliding_window=True,
               sliding_window=20, max_window_layers=1),
         contrasts=(TO_WINDOW_OFF, {"layer_types": ["sliding_attention"] * 3}), old={}),
    Case("qwen3_window_all", "sliding window of 16, exactly a block, in every layer", 1, "qwen3",
         shape(48, 2, 4, 4, 16, 96, 300, rms_norm_eps=1e-6, use_sliding_window=True,
               sliding_window=16, max_window_layers=0),
         contrasts=(TO_WINDOW_OFF, {"sliding_window": 17})),
    Case("qwen3_window_alternating", "layer_types given: sliding and full layers in turn", 2,
         "qwen3", shape(48, 4, 6, 3, 12, 64, 250, rms_norm_eps=1e-6, use_sliding_window=True,
                        sliding_window=9, max_window_layers=0,
                        layer_types=["sliding_attention", "full_attention"] * 2),
         contrasts=(TO_WINDOW_OFF, {"layer_types": ["sliding_attention"] * 4})),
    Case("qwen3_yarn_biases",
         "attention biases and q/k norms; yarn whose factor is not the ratio of the lengths; F32",
         1, "qwen3",
         shape(48, 2, 6, 2, 16, 64, 210, rms_norm_eps=1e-6, attention_bias=True,
               max_position_embeddings=320, use_sliding_window=False,
               rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64)),
         dtype="float32", contrasts=(NO_SCALING, {"attention_bias": False}),
         old={}),
]

CASES = LLAMA + MISTRAL + QWEN2 + QWEN3
