// The seam's ops on a GPU: resolves what the host handed in, then launches or lets ops wait for
// their neighbours (fusion.cuh).
#include <algorithm>
#include <vector>

#include "base/check.hpp"
#include "kernels/attention/attention.cuh"
#include "kernels/cuda/cuda_device.cuh"
#include "kernels/cuda/cuda_queue.cuh"
#include "kernels/embed/embed.cuh"
#include "kernels/vocabulary/vocabulary.cuh"

namespace troupe::kernels::cuda {
namespace {

// Step data and constants by their element type.
template <class T>
const T* step_span(cuda_queue& on, std::span<const T> host) {
  return static_cast<const T*>(on.step_data(host.data(), host.size_bytes()));
}
template <class T>
const T* constant_span(cuda_queue& on, std::span<const T> host) {
  return static_cast<const T*>(on.constant(host.data(), host.size_bytes()));
}

constexpr std::size_t aligned(std::size_t bytes) {
  constexpr std::size_t to = 256;
  return (bytes + to - 1) / to * to;
}

weight_type type_of(const packed_tensor& packed) {
  if (packed.kind() == quantisation::float8_blocks) return weight_type::float8_e4m3;
  return packed.type() == dtype::bfloat16 ? weight_type::bfloat16 : weight_type::float32;
}

matmul_weights weights_of(const packed_tensor& packed) {
  matmul_weights made{.data = packed.device_rows(),
                      .type = type_of(packed),
                      .scales = packed.device_scales(),
                      .outputs = packed.outputs(),
                      .inputs = packed.inputs(),
                      .padded_inputs = packed.padded_inputs(),
                      .runs = static_cast<int>(packed.run_ends().size())};
  static_assert(matmul_k_tile == cuda_run_inputs);
  const std::int64_t step =
      made.type == weight_type::float8_e4m3 ? cuda_float8_run_inputs : matmul_k_tile;
  int run = 0;
  for (const std::int64_t end : packed.run_ends()) {
    const std::int64_t length = end - made.run_begin[run];
    const std::int64_t padded = (length + step - 1) / step * step;
    made.run_begin[run + 1] = end;
    made.padded_run_begin[run + 1] = made.padded_run_begin[run] + padded;
    ++run;
  }
  return made;
}

class cuda_ops final : public ops {
 public:
  void embed(queue& on, const embed_args& args) override;
  void rms_norm(queue& on, const rms_norm_args& args) override {
    cuda_queue& here = queue_of(on);
    here.pending().enqueue(
        norm_op{args.input, constant_span(here, args.weight), args.epsilon, args.output});
  }
  void matmul(queue& on, const matmul_args& args) override {
    cuda_queue& here = queue_of(on);
    here.pending().enqueue(matmul_op{args.input, weights_of(*args.weights),
                                     constant_span(here, args.bias), args.output});
  }
  void rotary(queue& on, const rotary_args& args) override {
    cuda_queue& here = queue_of(on);
    here.pending().enqueue(
        rotary_op{args.heads, step_span(here, args.cos), step_span(here, args.sin)});
  }
  void write_kv(queue& on, const write_kv_args& args) override {
    cuda_queue& here = queue_of(on);
    here.pending().enqueue(
        write_op{args.keys, args.values, args.cache, step_span(here, args.slots)});
  }
  void attention(queue& on, const attention_args& args) override;
  void gated_activation(queue& on, const gated_activation_args& args) override {
    queue_of(on).pending().enqueue(
        gated_op{args.gate, args.up, static_cast<gate>(args.kind), args.output});
  }
  void add(queue& on, const add_args& args) override {
    cuda_queue& here = queue_of(on);
    here.pending().enqueue(add_op{args.target, args.addend, constant_span(here, args.bias)});
  }
  void gather_rows(queue& on, const gather_rows_args& args) override;
  void summarise_vocabulary(queue& on, const summarise_vocabulary_args& args) override;

 private:
  static_assert(cache_block_positions == kv_block_tokens);
  static_assert(static_cast<int>(gate::silu) == static_cast<int>(gate_kind::silu) &&
                static_cast<int>(gate::gelu_tanh) == static_cast<int>(gate_kind::gelu_tanh) &&
                static_cast<int>(gate::gelu) == static_cast<int>(gate_kind::gelu));

  // A model is given its ops and its queue together.
  static cuda_queue& queue_of(queue& on) {
    auto* const here = dynamic_cast<cuda_queue*>(&on);
    TROUPE_CHECK(here != nullptr);
    return *here;
  }
  std::vector<sequence_shape> shapes_;  // of the sequences at hand
};

void cuda_ops::attention(queue& on, const attention_args& args) {
  cuda_queue& here = queue_of(on);
  here.pending().flush();
  shapes_.clear();
  std::int64_t single_rows = 0;
  std::int64_t positions_max = 0;
  for (const sequence_rows& rows : args.sequences) {
    // Not where it ends now: a recorded step is replayed up to what its tables can hold.
    const auto bound = static_cast<std::int64_t>(rows.block_table.size()) * kv_block_tokens;
    shapes_.push_back({.rows = rows.rows, .positions_max = bound});
    if (rows.rows != 1) continue;
    ++single_rows;
    positions_max = std::max(positions_max, bound);
  }
  const auto heads = static_cast<int>(args.kv_head_of.size());
  const auto head_dim = static_cast<int>(args.cache.head_dim);
  const auto work = here.workspace(
      scratch::attention, attention_workspace_bytes(single_rows, positions_max, heads, head_dim));
  const attention_launch what{.query = args.query.row<const float>(0),
                              .query_stride = args.query.row_stride,
                              .keys = args.cache.keys.address,
                              .values = args.cache.values.address,
                              .cache_is_bfloat16 = args.cache.type == dtype::bfloat16,
                              .blocks = args.cache.blocks,
                              .kv_heads = static_cast<int>(args.cache.heads),
                              .head_dim = head_dim,
                              .heads = heads,
                              .kv_head_of = constant_span(here, args.kv_head_of),
                              .host_kv_head_of = args.kv_head_of.data(),
                              .sequences = here.sequences(args.sequences),
                              .shapes = shapes_.data(),
                              .sequence_count = static_cast<std::int64_t>(args.sequences.size()),
                              .scale = args.scale,
                              .window = args.window.value_or(0),
                              .output = args.output.data.address,
                              .output_is_bfloat16 = args.output.type == dtype::bfloat16,
                              .output_stride = args.output.row_stride,
                              .workspace = work.data(),
                              .workspace_bytes = work.size(),
                              .upload =
                                  [](void* state, const void* host, std::size_t bytes) {
                                    return static_cast<cuda_queue*>(state)->step_data(host, bytes);
                                  },
                              .upload_state = &here};
  here.note(cuda::attention(here.stream(), what), "attention");
}

void cuda_ops::embed(queue& on, const embed_args& args) {
  TROUPE_CHECK(args.table->kind() == quantisation::none);
  cuda_queue& here = queue_of(on);
  here.pending().flush();
  here.note(cuda::embed(here.stream(), {.table = args.table->device_rows(),
                                        .table_is_bfloat16 = args.table->type() == dtype::bfloat16,
                                        .table_stride = args.table->padded_inputs(),
                                        .ids = step_span(here, args.local_ids),
                                        .rows = static_cast<std::int64_t>(args.local_ids.size()),
                                        .columns = args.table->inputs(),
                                        .output = args.output.row<float>(0),
                                        .output_stride = args.output.row_stride}),
            "an embedding");
}

// A matrix of activations is a table of float32 like any other.
void cuda_ops::gather_rows(queue& on, const gather_rows_args& args) {
  cuda_queue& here = queue_of(on);
  here.pending().flush();
  here.note(cuda::embed(here.stream(), {.table = args.input.row<const float>(0),
                                        .table_is_bfloat16 = false,
                                        .table_stride = args.input.row_stride,
                                        .ids = step_span(here, args.rows),
                                        .rows = static_cast<std::int64_t>(args.rows.size()),
                                        .columns = args.input.columns(),
                                        .output = args.output.row<float>(0),
                                        .output_stride = args.output.row_stride}),
            "a gather of rows");
}

void cuda_ops::summarise_vocabulary(queue& on, const summarise_vocabulary_args& args) {
  cuda_queue& here = queue_of(on);
  here.pending().flush();
  summarise_launch what{.logits = args.logits.row<const float>(0),
                        .stride = args.logits.row_stride,
                        .rows = static_cast<std::int64_t>(args.rows.size()),
                        .runs = static_cast<int>(args.run_ends.size()),
                        .first_token_id = args.first_token_id,
                        .sampling = step_span(here, args.rows),
                        .candidates = args.candidates};
  std::copy(args.run_ends.begin(), args.run_ends.end(), what.run_begin + 1);
  // Results, then the kernels' own scratch, in one workspace.
  const std::size_t summary_bytes = aligned(args.summaries.size_bytes());
  const std::size_t top_bytes = aligned(args.top.size_bytes());
  const std::size_t scratch_bytes = summarise_workspace_bytes(what);
  const auto work = here.workspace(scratch::vocabulary, summary_bytes + top_bytes + scratch_bytes);
  if (work.empty()) return;  // noted
  what.summaries = reinterpret_cast<run_summary*>(work.data());
  what.top = reinterpret_cast<token_candidate*>(work.data() + summary_bytes);
  what.workspace = work.data() + summary_bytes + top_bytes;
  what.workspace_bytes = scratch_bytes;
  here.note(cuda::summarise_vocabulary(here.stream(), what), "condensing logits");
  here.deliver(what.summaries, args.summaries.data(), args.summaries.size_bytes());
  here.deliver(what.top, args.top.data(), args.top.size_bytes());
}

}  // namespace

std::unique_ptr<ops> make_cuda_ops() { return std::make_unique<cuda_ops>(); }

}  // namespace troupe::kernels::cuda
