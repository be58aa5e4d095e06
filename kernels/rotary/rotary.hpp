// Rotary position embedding, in place: the half-rotation of transformers' rotate_half.
#pragma once

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// With a = x[i], b = x[i + head_dim/2], c = cos[token][i], s = sin[token][i]:
//   x[i] = a c - b s,  x[i + head_dim/2] = b c + a s
// each as one rounded product and one fused multiply-add.
// Shape: args.heads float32 [tokens][heads][head_dim], head_dim even, rows strided; cos and sin
// [tokens][head_dim / 2].
// Cost: one read and write of the heads.
// Source: Su et al., "RoFormer" (2021); transformers, apply_rotary_pos_emb of modeling_llama.
void rotary(instruction_path path, thread_pool& pool, const rotary_args& args);

// Plain loops in double.
void rotary_reference(const rotary_args& args);

}  // namespace troupe::kernels
