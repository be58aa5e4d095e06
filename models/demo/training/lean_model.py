"""The Qwen3 forward pass for training: the sums of transformers' class with less around them.

Master weights are float32; each step works on copies in `dtype`: bfloat16 where the machine has
products of it, else float32. The residual stream stays float32, as in the engine. export.py writes
the weights under Hugging Face's names.
"""

import torch
import torch.nn.functional as F

HEADS, KV_HEADS, HEAD_DIM = 8, 4, 32
ROPE_THETA = 10000.0
EPS = 1e-6


def rotated(x, cos, sin):
    """Shape: x [rows, heads, positions, head_dim]; the halves of a head are pairs."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def random_matrix(rows, columns, gain=1.0):
    return torch.nn.Parameter(torch.randn(rows, columns) * (gain * columns ** -0.5))


def norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, EPS)


class layer(torch.nn.Module):
    def __init__(self, hidden, intermediate, layers, dtype):
        super().__init__()
        self.dtype = dtype
        out = (2 * layers) ** -0.5  # what a layer adds is small at first
        q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
        self.input_norm = torch.nn.Parameter(torch.ones(hidden))
        self.qkv = random_matrix(q + 2 * kv, hidden)
        self.q_norm = torch.nn.Parameter(torch.ones(HEAD_DIM))
        self.k_norm = torch.nn.Parameter(torch.ones(HEAD_DIM))
        self.o = random_matrix(hidden, q, out)
        self.mlp_norm = torch.nn.Parameter(torch.ones(hidden))
        self.gate_up = random_matrix(2 * intermediate, hidden)
        self.down = random_matrix(hidden, intermediate, out)

    def forward(self, x, cos, sin, mask):
        rows, positions, _ = x.shape
        h = norm(x, self.input_norm).to(self.dtype)
        qkv = F.linear(h, self.qkv.to(self.dtype)).view(rows, positions, -1, HEAD_DIM)
        q, k, v = qkv.split([HEADS, KV_HEADS, KV_HEADS], dim=2)
        q = rotated(norm(q, self.q_norm.to(self.dtype)).transpose(1, 2), cos, sin)
        k = rotated(norm(k, self.k_norm.to(self.dtype)).transpose(1, 2), cos, sin)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v.transpose(1, 2)))
        # Written out: the backward of the fused kernel takes half of a step at these lengths.
        scores = q @ (k * HEAD_DIM ** -0.5).transpose(2, 3) + mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, positions, -1)
        x = x + F.linear(mixed, self.o.to(self.dtype))
        h = norm(x, self.mlp_norm).to(self.dtype)
        gate, up = F.linear(h, self.gate_up.to(self.dtype)).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down.to(self.dtype))


class lean_model(torch.nn.Module):
    def __init__(self, vocab_size, hidden, intermediate, layers, dtype):
        super().__init__()
        self.dtype = dtype
        self.embedding = random_matrix(vocab_size, hidden)
        self.layers = torch.nn.ModuleList(
            layer(hidden, intermediate, layers, dtype) for _ in range(layers))
        self.final_norm = torch.nn.Parameter(torch.ones(hidden))
        self.intermediate = intermediate

    def hidden_states(self, ids):
        """Shape: ids [rows, positions] -> twice [rows, positions, hidden], float32: after the last
        norm, and after three quarters of the layers."""
        at = torch.arange(ids.shape[1], dtype=torch.float32, device=ids.device)
        halves = torch.arange(0, HEAD_DIM, 2, dtype=torch.float32, device=ids.device)
        angle = at[:, None] * (ROPE_THETA ** (-halves / HEAD_DIM))[None, :]
        cos, sin = angle.cos().to(self.dtype), angle.sin().to(self.dtype)
        mask = torch.full((len(at), len(at)), -1e9, device=ids.device).triu(1).to(self.dtype)
        x = F.embedding(ids, self.embedding)
        middle = x
        for i, one in enumerate(self.layers):
            x = one(x, cos, sin, mask)
            if i + 1 == len(self.layers) * 3 // 4:
                middle = norm(x, None)
        return norm(x, self.final_norm), middle

    def logits(self, hidden):
        return F.linear(hidden.to(self.dtype), self.embedding.to(self.dtype)).float()

    def hugging_face_tensors(self):
        """Name -> tensor, as Qwen3ForCausalLM names them."""
        q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
        out = {"model.embed_tokens.weight": self.embedding, "model.norm.weight": self.final_norm}
        for i, one in enumerate(self.layers):
            names = {
                "input_layernorm": one.input_norm, "post_attention_layernorm": one.mlp_norm,
                "self_attn.q_norm": one.q_norm, "self_attn.k_norm": one.k_norm,
                "self_attn.q_proj": one.qkv[:q], "self_attn.k_proj": one.qkv[q:q + kv],
                "self_attn.v_proj": one.qkv[q + kv:], "self_attn.o_proj": one.o,
                "mlp.gate_proj": one.gate_up[:self.intermediate],
                "mlp.up_proj": one.gate_up[self.intermediate:], "mlp.down_proj": one.down}
            out.update({f"model.layers.{i}.{name}.weight": t for name, t in names.items()})
        return {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in out.items()}
