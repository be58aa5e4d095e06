"""The trained model as a Hugging Face folder in bfloat16."""

import json

from safetensors.torch import save_file

from lean_model import EPS, HEAD_DIM, HEADS, KV_HEADS, ROPE_THETA

POSITIONS = 4096

# ChatML. A conversation without a system message has none: the model needs no standing orders.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def config_of(model):
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": model.embedding.shape[0],
        "hidden_size": model.embedding.shape[1],
        "intermediate_size": model.intermediate,
        "num_hidden_layers": len(model.layers),
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_THETA,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "eos_token_id": [2, 0],
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
    }


def write_folder(model, tokenizer, out):
    out.mkdir(parents=True, exist_ok=True)
    tensors = model.hugging_face_tensors()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)

    def write(name, value):
        (out / name).write_text(json.dumps(value, indent=2) + "\n")

    write("config.json", config_of(model))
    write("generation_config.json", {"eos_token_id": [2, 0], "pad_token_id": 0})
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": POSITIONS,
        "chat_template": CHAT_TEMPLATE,
    })
