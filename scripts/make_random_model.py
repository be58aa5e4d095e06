"""Writes a Hugging Face folder with random weights in the shape of a real model.

For benchmarks and load tests, where speed depends on shapes alone and downloading gigabytes
buys nothing. Needs numpy and the standard library only; the safetensors file is written
tensor by tensor, so a model of any size needs about 100 MiB of memory.

Every tensor has its own counter-based generator, keyed by the seed and the tensor's name: one
numpy gives the same bytes for a seed whatever the order, the sharding or the number of layers.

    scripts/make_random_model --shape qwen3-0.6b --seed 1 models/qwen3-0.6b
"""

import argparse
import hashlib
import json
import math
import os
import re
import sys
import time

import numpy as np

CHUNK_VALUES = 1 << 22  # 16 MiB of float32 at a time: larger does not go faster
HEADER_ALIGNMENT = 8  # safetensors pads its JSON header with spaces to 8 bytes
STORED_DTYPES = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float32": ("F32", 4)}

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-05,
    "max_position_embeddings": 131072, "tie_word_embeddings": True, "vocab_size": 128256,
    "bos_token_id": 128000, "eos_token_id": 128001,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "attention_bias": False, "rms_norm_eps": 1e-06, "max_position_embeddings": 40960,
    "tie_word_embeddings": True, "vocab_size": 151936, "use_sliding_window": False,
    "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
    "rms_norm_eps": 1e-06, "max_position_embeddings": 32768,
    "tie_word_embeddings": True, "vocab_size": 151936, "use_sliding_window": False,
    "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
    "rms_norm_eps": 1e-05, "max_position_embeddings": 32768,
    "tie_word_embeddings": False, "vocab_size": 32768, "sliding_window": None,
    "bos_token_id": 1, "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}


def shape(family, hidden, layers, heads, kv_heads, head_dim, intermediate, **more):
    return {
        **family, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "intermediate_size": intermediate, **more}


# Source: the published config.json of each model (the tiny ones are ours).
SHAPES = {
    "qwen3-0.6b": shape(QWEN3, 1024, 28, 16, 8, 128, 3072),
    "qwen3-1.7b": shape(QWEN3, 2048, 28, 16, 8, 128, 6144),
    "qwen3-8b": shape(QWEN3, 4096, 36, 32, 8, 128, 12288, tie_word_embeddings=False),
    "qwen2.5-0.5b": shape(QWEN2, 896, 24, 14, 2, 64, 4864),
    "qwen2.5-1.5b": shape(QWEN2, 1536, 28, 12, 2, 128, 8960),
    "llama-1b": shape(LLAMA, 2048, 16, 32, 8, 64, 8192),
    "llama-3b": shape(LLAMA, 3072, 28, 24, 8, 128, 8192),
    "mistral-7b": shape(MISTRAL, 4096, 32, 32, 8, 128, 14336),
    "tiny": shape(LLAMA, 256, 4, 8, 4, 32, 704, vocab_size=4096, bos_token_id=0, eos_token_id=1,
                  max_position_embeddings=4096, tie_word_embeddings=False,
                  rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
    "tiny-qwen3": shape(QWEN3, 256, 4, 8, 4, 64, 704, vocab_size=4096, bos_token_id=0,
                        eos_token_id=1, max_position_embeddings=4096),
}


class Refused(Exception):
    """The user's input cannot be used; the message says what, where and how to fix it."""


def dimension(config, field, default=None):
    value = config.get(field)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused(f"config field {field} is {value!r}: give a whole number of at least 1")
    return value


def tensor_shapes(config):
    """[(name, shape, kind)] of every tensor that the architecture stores.

    kind: "norm" (around 1), "bias", "embedding" or "linear" (its last dimension is its fan-in).
    """
    family = config.get("model_type")
    if family not in ("llama", "mistral", "qwen2", "qwen3"):
        raise Refused(f"model_type {family!r} is not known: use llama, mistral, qwen2 or qwen3")
    hidden = dimension(config, "hidden_size")
    heads = dimension(config, "num_attention_heads")
    kv_heads = dimension(config, "num_key_value_heads", heads)
    # Source: Qwen3Config fixes head_dim at 128; the others divide.
    head_dim = dimension(config, "head_dim", 128 if family == "qwen3" else hidden // heads)
    intermediate = dimension(config, "intermediate_size")
    vocab = dimension(config, "vocab_size")
    bias = bool(config.get("attention_bias", False))
    qkv_bias, o_bias = bias or family == "qwen2", bias and family != "qwen2"
    mlp_bias = bool(config.get("mlp_bias", False))

    tensors = [("model.embed_tokens.weight", (vocab, hidden), "embedding")]

    def linear(name, rows, columns, with_bias):
        tensors.append((name + ".weight", (rows, columns), "linear"))
        if with_bias:
            tensors.append((name + ".bias", (rows,), "bias"))

    for layer in range(dimension(config, "num_hidden_layers")):
        at = f"model.layers.{layer}."
        tensors.append((at + "input_layernorm.weight", (hidden,), "norm"))
        linear(at + "self_attn.q_proj", heads * head_dim, hidden, qkv_bias)
        linear(at + "self_attn.k_proj", kv_heads * head_dim, hidden, qkv_bias)
        linear(at + "self_attn.v_proj", kv_heads * head_dim, hidden, qkv_bias)
        linear(at + "self_attn.o_proj", hidden, heads * head_dim, o_bias)
        if family == "qwen3":
            tensors.append((at + "self_attn.q_norm.weight", (head_dim,), "norm"))
            tensors.append((at + "self_attn.k_norm.weight", (head_dim,), "norm"))
        tensors.append((at + "post_attention_layernorm.weight", (hidden,), "norm"))
        linear(at + "mlp.gate_proj", intermediate, hidden, mlp_bias)
        linear(at + "mlp.up_proj", intermediate, hidden, mlp_bias)
        linear(at + "mlp.down_proj", hidden, intermediate, mlp_bias)
    tensors.append(("model.norm.weight", (hidden,), "norm"))
    if not config.get("tie_word_embeddings", False):
        tensors.append(("lm_head.weight", (vocab, hidden), "embedding"))
    return tensors


def spread(kind, dims):
    """(mean, standard deviation) of a tensor's values.

    A linear keeps the size of its input (1 / sqrt(fan-in)), so activations stay in range at any
    depth; embeddings are twice that, so that logits spread by about 2 and tokens vary.
    """
    if kind == "norm":
        return 1.0, 0.1
    if kind == "bias":
        return 0.0, 0.1
    return 0.0, (2.0 if kind == "embedding" else 1.0) / math.sqrt(dims[-1])


def to_stored(values, dtype):
    """float32 values as the little-endian bytes of the stored dtype, rounded to nearest even."""
    if dtype == "float32":
        return values.astype("<f4", copy=False)
    if dtype == "float16":
        return values.astype("<f2")
    bits = values.view(np.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)  # no overflow: a normal draw is never near infinity
    return (bits >> 16).astype("<u2")


def write_values(file, name, dims, kind, seed, dtype):
    key = np.frombuffer(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], dtype="<u8")
    generator = np.random.Generator(np.random.Philox(key=key))
    mean, deviation = spread(kind, dims)
    left = math.prod(dims)
    while left > 0:
        values = generator.standard_normal(min(left, CHUNK_VALUES), dtype=np.float32)
        values *= np.float32(deviation)
        values += np.float32(mean)
        file.write(to_stored(values, dtype).data)
        left -= values.size


def header_of(tensors, dtype):
    stored, width = STORED_DTYPES[dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dims, _ in tensors:
        end = offset + math.prod(dims) * width
        header[name] = {"dtype": stored, "shape": list(dims), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def split_shards(tensors, dtype, shard_bytes_max):
    """Fills shards in order, as Hugging Face does; a tensor is never split over two files."""
    shards, used = [[]], 0
    for tensor in tensors:
        size = math.prod(tensor[1]) * STORED_DTYPES[dtype][1]
        if shards[-1] and used + size > shard_bytes_max:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += size
    return shards


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")


def remove_old_checkpoint(folder):
    """A leftover shard of an earlier shape would make the folder ambiguous."""
    for name in os.listdir(folder):
        if re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", name):
            os.remove(os.path.join(folder, name))


def write_model(folder, config, options):
    tensors = tensor_shapes(config)
    width = STORED_DTYPES[options.dtype][1]
    total = sum(math.prod(dims) * width for _, dims, _ in tensors)
    os.makedirs(folder, exist_ok=True)
    remove_old_checkpoint(folder)
    shards = split_shards(tensors, options.dtype, options.max_shard_bytes)
    weight_map, written, started = {}, 0, time.monotonic()
    for index, shard in enumerate(shards):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        with open(os.path.join(folder, name), "wb") as file:
            file.write(header_of(shard, options.dtype))
            for tensor_name, dims, kind in shard:
                write_values(file, tensor_name, dims, kind, options.seed, options.dtype)
                weight_map[tensor_name] = name
                written += math.prod(dims) * width
                progress(written, total)
    if len(shards) > 1:
        write_json(os.path.join(folder, "model.safetensors.index.json"),
                   {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(os.path.join(folder, "config.json"), {**config, "dtype": options.dtype})
    write_json(os.path.join(folder, "generation_config.json"), {
        "bos_token_id": config.get("bos_token_id"), "eos_token_id": config.get("eos_token_id"),
        "do_sample": False})
    seconds = time.monotonic() - started
    parameters = total // width
    print(f"{folder}: {parameters:,} parameters, {total / 1e9:.2f} GB, {seconds:.1f} s")


def progress(done, total):
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{100 * done // total} %", end=end, file=sys.stderr, flush=True)


def load_config(options):
    if options.config is None:
        return SHAPES[options.shape]
    try:
        with open(options.config, encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        raise Refused(f"{options.config}: {error}: give a readable config.json") from None
    if not isinstance(config, dict):
        raise Refused(f"{options.config}: not a JSON object: give a Hugging Face config.json")
    config.pop("torch_dtype", None)  # the old name would contradict the dtype written here
    return config


def main():
    parser = argparse.ArgumentParser(
        prog="make_random_model", description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--shape", choices=sorted(SHAPES), help="a built-in shape")
    source.add_argument("--config", help="a config.json that gives the shape")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--dtype", choices=STORED_DTYPES, default="bfloat16",
                        help="stored dtype, default bfloat16")
    parser.add_argument("--max-shard-bytes", type=int, default=5 * 10**9,
                        help="start a new file beyond this, in bytes, default 5 GB")
    parser.add_argument("folder", help="where to write; made if missing")
    options = parser.parse_args()
    try:
        write_model(options.folder, load_config(options), options)
    except (Refused, OSError) as error:
        print(f"make_random_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
