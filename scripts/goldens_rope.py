"""Writes golden rotary tables, taken from transformers' own modules.

For each rotary scaling and some awkward sizes: the frequencies at load, and the cosines and sines
that the module gives to a prompt and then to tokens that follow one by one, which is where dynamic
scaling changes its mind.

    python scripts/goldens_rope.py --out tests/golden
"""

import argparse
import json
import os
import sys

# Before torch is imported: the same kernels, hence the same bits, on every processor.
os.environ["ATEN_CPU_CAPABILITY"] = "default"

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig  # noqa: E402
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding  # noqa: E402

BASE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64,
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64}


def case(name, rope, prompt, decoded=3, **fields):
    """`rope`: fields of config.json as written there; decoded: tokens after the prompt."""
    return {"name": name, "config": {**BASE, **fields, **rope}, "prompt": prompt,
            "decoded": decoded}


def new(rope_type, theta=10000.0, **more):
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": theta, **more}}


def old(theta=10000.0, **scaling):
    return {"rope_theta": theta, "rope_scaling": scaling or None}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES = [
    case("default", new("default"), 40, head_dim=16),
    case("default_without_fields", {}, 5),
    case("default_million", old(1000000.0), 70, head_dim=128),
    case("default_head_dim_24", old(500000.0), 9, head_dim=24),
    case("linear", new("linear", factor=4.0), 80, head_dim=16),
    case("linear_old_odd_factor", old(type="linear", factor=2.7), 33, head_dim=64),
    case("dynamic_short_prompt", new("dynamic", factor=2.0), 40, 30, head_dim=16),
    case("dynamic_prompt_at_trained_length", new("dynamic", factor=4.0), 64, 4, head_dim=16),
    case("dynamic_long_prompt", old(type="dynamic", factor=2.7), 100, 5, head_dim=64),
    case("dynamic_head_dim_4", old(rope_type="dynamic", factor=8), 70, 2, head_dim=4),
    case("llama3", new("llama3", 500000.0, original_max_position_embeddings=32, **LLAMA3), 60,
         head_dim=64),
    case("llama3_published", old(500000.0, rope_type="llama3",
                                 original_max_position_embeddings=8192, **LLAMA3), 60,
         head_dim=128, max_position_embeddings=131072),
    case("llama3_outer_length", {**new("llama3", original_max_position_embeddings=16, **LLAMA3),
                                 "original_max_position_embeddings": 48}, 20, head_dim=64),
    case("yarn", new("yarn", factor=4.0, original_max_position_embeddings=16), 64, head_dim=16),
    case("yarn_published", old(1000000.0, type="yarn", factor=4.0,
                               original_max_position_embeddings=32768), 60, head_dim=128,
         max_position_embeddings=131072),
    case("yarn_mscale", new("yarn", factor=40.0, original_max_position_embeddings=4096,
                            mscale=1.0, mscale_all_dim=0.707, beta_fast=32, beta_slow=1), 60,
         head_dim=64, max_position_embeddings=163840),
    case("yarn_attention_factor", new("yarn", factor=2.0, attention_factor=1.25,
                                      original_max_position_embeddings=32), 40, head_dim=32),
    case("yarn_not_truncated", new("yarn", 150000.0, factor=32.0, truncate=False,
                                   original_max_position_embeddings=4096), 40, head_dim=64,
         max_position_embeddings=131072),
    case("yarn_null_factor", new("yarn", factor=None, original_max_position_embeddings=16), 20,
         head_dim=32),
    case("yarn_betas_of_one_dimension", new("yarn", factor=8.0, beta_fast=4, beta_slow=4,
                                            original_max_position_embeddings=64), 20, head_dim=8),
    case("yarn_length_not_given", new("yarn", factor=2.0), 20, head_dim=16),
]


def picked(prompt):
    """A few positions of the prompt: all would make a large file and say no more."""
    return sorted({0, 1, 2, 7, prompt // 2, prompt - 1} & set(range(prompt)))


def table(entry):
    fields = {key: value for key, value in entry["config"].items() if key != "architectures"}
    # Given by model_type: transformers takes the rest as it stands in config.json.
    config = AutoConfig.for_model(**json.loads(json.dumps(fields)))
    module = LlamaRotaryEmbedding(config)
    hidden = torch.zeros(1, 1, 1)
    tokens = []

    def take(positions, wanted):
        cos, sin = module(hidden, torch.tensor([positions]))
        half = cos.shape[-1] // 2
        for position in wanted:
            at = positions.index(position)
            tokens.append({"position": position, "cos": cos[0, at, :half].tolist(),
                           "sin": sin[0, at, :half].tolist()})

    inv_freq = module.inv_freq.tolist()
    prompt = entry["prompt"]
    take(list(range(prompt)), picked(prompt))
    for position in range(prompt, prompt + entry["decoded"]):
        take([position], [position])
    return {**entry, "inv_freq": inv_freq, "attention_scaling": float(module.attention_scaling),
            "tokens": tokens}


def rounded(value):
    """9 significant digits give back the same float32."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: item if key == "config" else rounded(item) for key, item in value.items()}
    return value


def main():
    parser = argparse.ArgumentParser(prog="goldens_rope", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the folder that gets rope.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    torch_version = torch.__version__.split("+")[0]
    golden = {
        "source": f"transformers {transformers.__version__}, torch {torch_version}",
        "cases": [rounded(table(entry)) for entry in CASES]}
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "rope.json"), "w", encoding="utf-8") as file:
        file.write('{"source":' + json.dumps(golden["source"]) + ',\n"cases":[\n')
        lines = [json.dumps(entry, separators=(",", ":")) for entry in golden["cases"]]
        file.write(",\n".join(lines) + "\n]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
