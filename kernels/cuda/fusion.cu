#include "kernels/cuda/fusion.cuh"

#include <algorithm>

#include "kernels/add/add.cuh"
#include "kernels/cuda/cuda_queue.cuh"
#include "kernels/gated_activation/gated_activation.cuh"
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rotary/rotary.cuh"
#include "kernels/write_kv/prepare_heads.cuh"
#include "kernels/write_kv/write_kv.cuh"

namespace troupe::kernels::cuda {
namespace {

bool same(const tensor_view& a, const tensor_view& b) {
  return a.data.address == b.data.address && a.type == b.type && a.shape == b.shape &&
         a.row_stride == b.row_stride;
}

bool of_heads(const norm_op& op) {
  return op.input.shape[2] > 1 && op.input.shape[2] <= prepared_head_dim_max;
}

rms_norm_launch norm_of(const norm_op& op) {
  const bool heads = op.input.shape[2] > 1;
  return {.input = op.input.row<float>(0),
          .input_stride = op.input.row_stride,
          .rows = op.input.rows(),
          .heads = heads ? static_cast<int>(op.input.shape[1]) : 1,
          .columns = static_cast<int>(heads ? op.input.shape[2] : op.input.shape[1]),
          .weight = op.weight,
          .epsilon = op.epsilon,
          .output = op.output.data.address,
          .output_is_bfloat16 = op.output.type == dtype::bfloat16,
          .output_stride = op.output.row_stride};
}

write_kv_launch write_of(const write_op& op) {
  return {.keys = op.keys.row<float>(0),
          .keys_stride = op.keys.row_stride,
          .values = op.values.row<float>(0),
          .values_stride = op.values.row_stride,
          .tokens = op.keys.rows(),
          .cache = {.keys = op.cache.keys.address,
                    .values = op.cache.values.address,
                    .is_bfloat16 = op.cache.type == dtype::bfloat16,
                    .blocks = op.cache.blocks,
                    .heads = static_cast<int>(op.cache.heads),
                    .head_dim = static_cast<int>(op.cache.head_dim)},
          .slots = op.slots};
}

}  // namespace

void fusion::enqueue(waiting_op op) {
  waiting_.push_back(std::move(op));
  while (!waiting_.empty()) {
    const match heads = match_heads();
    const match add_norm = match_add_norm();
    const match gate_of = match_gate();
    if (heads == match::whole) return launch_heads();
    if (add_norm == match::whole) return launch_add_norm();
    if (gate_of == match::whole) return launch_gate();
    if (heads == match::prefix || add_norm == match::prefix || gate_of == match::prefix) return;
    std::visit([this](const auto& alone) { launch(alone); }, waiting_.front());
    waiting_.erase(waiting_.begin());
  }
}

void fusion::flush() {
  for (const waiting_op& op : waiting_) {
    std::visit([this](const auto& alone) { launch(alone); }, op);
  }
  waiting_.clear();
}

// [norm, norm,] rotary, rotary, write: the first of each pair is the queries', the second the
// keys'.
fusion::match fusion::match_heads() const {
  std::size_t at = 0;
  const auto take = [&]<class Op>(const Op*& into) {
    if (at == waiting_.size()) return true;
    into = std::get_if<Op>(&waiting_[at]);
    ++at;
    return into != nullptr;
  };
  const norm_op* query_norm = nullptr;
  const norm_op* key_norm = nullptr;
  const rotary_op* query = nullptr;
  const rotary_op* key = nullptr;
  const write_op* write = nullptr;
  if (std::holds_alternative<norm_op>(waiting_.front())) {
    if (!take(query_norm) || !take(key_norm)) return match::none;
  }
  if (!take(query) || !take(key) || !take(write) || at < waiting_.size()) return match::none;
  for (const norm_op* norm : {query_norm, key_norm}) {
    if (norm != nullptr && (!of_heads(*norm) || !same(norm->input, norm->output))) {
      return match::none;
    }
  }
  if (query != nullptr && query_norm != nullptr && !same(query->heads, query_norm->output)) {
    return match::none;
  }
  if (key != nullptr && key_norm != nullptr && !same(key->heads, key_norm->output)) {
    return match::none;
  }
  if (query != nullptr && query->heads.shape[2] > prepared_head_dim_max) return match::none;
  if (key != nullptr && key->cos != query->cos) return match::none;
  if (write != nullptr && !same(write->keys, key->heads)) return match::none;
  return write == nullptr ? match::prefix : match::whole;
}

fusion::match fusion::match_add_norm() const {
  const auto* const add = std::get_if<add_op>(&waiting_.front());
  if (add == nullptr || waiting_.size() > 2) return match::none;
  if (waiting_.size() == 1) return match::prefix;
  const auto* const norm = std::get_if<norm_op>(&waiting_[1]);
  const bool fits = norm != nullptr && norm->input.shape[2] == 1 &&
                    same(norm->input, add->target) &&
                    norm->output.data.address != add->target.data.address;
  return fits ? match::whole : match::none;
}

fusion::match fusion::match_gate() const {
  const auto* const matmul = std::get_if<matmul_op>(&waiting_.front());
  if (matmul == nullptr || waiting_.size() > 2) return match::none;
  if (matmul->bias != nullptr || matmul->weights.outputs % 2 != 0) return match::none;
  matmul_launch fused = product(*matmul);
  fused.fused = gate::silu;
  if (!matmul_can_fuse_gate(fused)) return match::none;
  if (waiting_.size() == 1) return match::prefix;
  const auto* const gated = std::get_if<gated_op>(&waiting_[1]);
  const std::int64_t half = matmul->weights.outputs / 2;
  const bool fits = gated != nullptr &&
                    same(gated->gate_columns, column_slice(matmul->output, 0, half)) &&
                    same(gated->up_columns, column_slice(matmul->output, half, half));
  return fits ? match::whole : match::none;
}

matmul_launch fusion::product(const matmul_op& op) const {
  return {.input = op.input.data.address,
          .input_stride = op.input.row_stride,
          .rows = op.input.rows(),
          .weights = &op.weights,
          .bias = op.bias,
          .output = op.output.row<float>(0),
          .output_stride = op.output.row_stride,
          .workspace = {}};
}

void fusion::launch_gate() {
  const auto& matmul_of = std::get<matmul_op>(waiting_[0]);
  const auto& gated = std::get<gated_op>(waiting_[1]);
  matmul_launch what = product(matmul_of);
  what.fused = gated.kind;
  what.gated = gated.output.data.address;
  what.gated_is_bfloat16 = gated.output.type == dtype::bfloat16;
  what.gated_stride = gated.output.row_stride;
  multiply(what);
  waiting_.clear();
}

void fusion::launch(const matmul_op& op) { multiply(product(op)); }

void fusion::multiply(matmul_launch what) {
  const auto work = on_.workspace(scratch::matmul, matmul_workspace_bytes(what));
  what.workspace = {work.data(), work.size()};
  on_.note(matmul(on_.stream(), what), "a matrix product");
}

void fusion::launch_add_norm() {
  const auto& add = std::get<add_op>(waiting_[0]);
  const add_rms_norm_launch what{.target = add.target.row<float>(0),
                                 .addend = add.addend.row<float>(0),
                                 .addend_stride = add.addend.row_stride,
                                 .bias = add.bias,
                                 .norm = norm_of(std::get<norm_op>(waiting_[1]))};
  on_.note(add_rms_norm(on_.stream(), what), "an addition and norm");
  waiting_.clear();
}

void fusion::launch_heads() {
  const auto* const query_norm = std::get_if<norm_op>(&waiting_[0]);
  const auto* const key_norm = std::get_if<norm_op>(&waiting_[1]);
  const std::size_t at = query_norm == nullptr ? 0 : 2;
  const auto& query = std::get<rotary_op>(waiting_[at]);
  const auto& write = std::get<write_op>(waiting_[at + 2]);
  prepare_heads_launch what{.query = query.heads.row<float>(0),
                            .query_stride = query.heads.row_stride,
                            .query_heads = static_cast<int>(query.heads.shape[1]),
                            .cos = query.cos,
                            .sin = query.sin,
                            .write = write_of(write)};
  if (query_norm != nullptr) {
    what.query_weight = query_norm->weight;
    what.query_epsilon = query_norm->epsilon;
    what.key_weight = key_norm->weight;
    what.key_epsilon = key_norm->epsilon;
  }
  on_.note(prepare_heads(on_.stream(), what), "preparing heads");
  waiting_.clear();
}

void fusion::launch(const norm_op& op) { on_.note(rms_norm(on_.stream(), norm_of(op)), "a norm"); }

void fusion::launch(const rotary_op& op) {
  on_.note(rotary(on_.stream(), {.heads = op.heads.row<float>(0),
                                 .token_stride = op.heads.row_stride,
                                 .tokens = op.heads.rows(),
                                 .count = static_cast<int>(op.heads.shape[1]),
                                 .head_dim = static_cast<int>(op.heads.shape[2]),
                                 .cos = op.cos,
                                 .sin = op.sin}),
           "a rotation");
}

void fusion::launch(const write_op& op) {
  on_.note(write_kv(on_.stream(), write_of(op)), "writing to the cache");
}

void fusion::launch(const add_op& op) {
  on_.note(add(on_.stream(), {.target = op.target.row<float>(0),
                              .target_stride = op.target.row_stride,
                              .addend = op.addend.row<float>(0),
                              .addend_stride = op.addend.row_stride,
                              .bias = op.bias,
                              .rows = op.target.rows(),
                              .columns = op.target.columns()}),
           "an addition");
}

void fusion::launch(const gated_op& op) {
  on_.note(gated_activation(on_.stream(), {.gates = op.gate_columns.row<float>(0),
                                           .gates_stride = op.gate_columns.row_stride,
                                           .ups = op.up_columns.row<float>(0),
                                           .ups_stride = op.up_columns.row_stride,
                                           .kind = op.kind,
                                           .output = op.output.data.address,
                                           .output_is_bfloat16 = op.output.type == dtype::bfloat16,
                                           .output_stride = op.output.row_stride,
                                           .rows = op.gate_columns.rows(),
                                           .columns = op.gate_columns.columns()}),
           "a gated activation");
}

}  // namespace troupe::kernels::cuda
