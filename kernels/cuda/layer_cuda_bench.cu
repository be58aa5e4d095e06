// One step's layers as a graph, and what each kernel adds to it: the whole, then without one kernel
// at a time. Decode steps, and a prompt.
#include <cstdio>
#include <functional>
#include <vector>

#include "kernels/attention/attention.cuh"
#include "kernels/cuda/bench_memory.cuh"
#include "kernels/cuda/bench_timer.cuh"
#include "kernels/matmul/matmul.cuh"
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/write_kv/prepare_heads.cuh"

namespace troupe::kernels::cuda {
namespace {

struct model_shape {
  const char* name;
  int hidden;
  int inner;
  int heads;
  int kv_heads;
  bool float8;
};
constexpr model_shape models[] = {{"0.6B", 1024, 3072, 16, 8, false},
                                  {"8B", 4096, 12288, 32, 8, false},
                                  {"8B float8", 4096, 12288, 32, 8, true},
                                  {"32B float8", 5120, 25600, 64, 8, true}};
constexpr int head_dim = 128;
constexpr int layers = 12;  // in turn, so that no cache keeps their weights
constexpr std::int64_t decode_position = 511;
constexpr std::int64_t prompt_rows = 8192;

enum class part : int { qkv, heads, attention, o, norm, gate_up, down, none };
constexpr const char* part_names[] = {
    "qkv", "prepare_heads", "attention", "o", "add_norm (two)", "gate_up", "down", "nothing"};

class layer_bench {
 public:
  layer_bench(cudaStream_t stream, const model_shape& shape, std::int64_t rows)
      : stream_(stream), shape_(shape), rows_(rows) {
    for (int layer = 0; layer < layers; ++layer) {
      weights_.push_back({product(qkv_columns(), shape.hidden, 1),
                          product(shape.hidden, shape.heads * head_dim, 8),
                          product(2 * shape.inner, shape.hidden, 1),
                          product(shape.hidden, shape.inner, 8)});
    }
    const bool prompt = rows == prompt_rows;
    const std::int64_t each = prompt ? rows : 1;  // rows of a sequence
    const std::int64_t first = prompt ? 0 : decode_position;
    const std::int64_t positions = first + each;
    const std::int64_t blocks_each = (positions - 1) / cache_block_positions + 1;
    const std::int64_t count_of = rows / each;
    std::vector<std::int32_t> table;
    std::vector<std::int64_t> slots;
    std::vector<device_sequence> sequences;
    for (std::int64_t i = 0; i < blocks_each * count_of; ++i) table.push_back(static_cast<int>(i));
    tables_ = memory_.copy(table);
    for (std::int64_t i = 0; i < count_of; ++i) {
      for (std::int64_t row = 0; row < each; ++row) {
        slots.push_back(i * blocks_each * cache_block_positions + first + row);
      }
      sequences.push_back({i * each, each, first, tables_ + i * blocks_each, blocks_each});
      shapes_.push_back({each, positions});
    }
    slots_ = memory_.copy(slots);
    sequences_ = memory_.copy(sequences);
    for (int head = 0; head < shape.heads; ++head) {
      kv_head_of_.push_back(head * shape.kv_heads / shape.heads);
    }
    device_kv_head_of_ = memory_.copy(kv_head_of_);
    blocks_ = blocks_each * count_of;
    const auto cache =
        static_cast<std::size_t>(blocks_ * cache_block_positions * shape.kv_heads) * head_dim;
    keys_ = memory_.take<bfloat16>(cache, 0x3C);
    values_ = memory_.take<bfloat16>(cache, 0x3C);
    const auto count = static_cast<std::size_t>(rows);
    residual_ = memory_.take<float>(count * static_cast<std::size_t>(shape.hidden), 0x3C);
    columns_ = memory_.take<float>(count * static_cast<std::size_t>(qkv_columns()), 0x3C);
    normed_ = memory_.take<bfloat16>(count * static_cast<std::size_t>(shape.hidden), 0x3C);
    mixed_ = memory_.take<bfloat16>(count * static_cast<std::size_t>(shape.heads * head_dim), 0x3C);
    gated_ = memory_.take<bfloat16>(count * static_cast<std::size_t>(shape.inner), 0x3C);
    ones_ = memory_.take<float>(static_cast<std::size_t>(shape.hidden), 0x3C);
    angles_ = memory_.take<float>(count * head_dim / 2, 0x3C);
    work_bytes_ = attention_workspace_bytes(count_of, positions, shape.heads, head_dim);
    work_ = memory_.take<std::byte>(work_bytes_, 0);
    product_work_ = memory_.take<std::byte>(product_work_bytes, 0);
  }

  // Units: microseconds a layer.
  double us_without(part left_out) {
    enqueue(left_out);  // what cannot be captured is done once before
    cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    enqueue(left_out);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    cudaStreamEndCapture(stream_, &graph);
    cudaGraphInstantiate(&executable, graph, 0);
    const bool prompt = rows_ == prompt_rows;
    const double us = median_us(stream_, prompt ? 3 : 7, prompt ? 1 : 4,
                                [&](int) { note(cudaGraphLaunch(executable, stream_)); });
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    return us / layers;
  }
  // Units: bytes.
  [[nodiscard]] double weight_bytes() const {
    const double elements = static_cast<double>(shape_.hidden) *
                            (qkv_columns() + shape_.heads * head_dim + 3.0 * shape_.inner);
    return elements * (shape_.float8 ? 1 : 2);
  }

 private:
  struct layer_weights {
    matmul_weights qkv;
    matmul_weights o;
    matmul_weights gate_up;
    matmul_weights down;
  };
  static constexpr std::size_t product_work_bytes = std::size_t{256} << 20;

  [[nodiscard]] int qkv_columns() const { return (shape_.heads + 2 * shape_.kv_heads) * head_dim; }
  static void note(cudaError_t code) {
    if (code != cudaSuccess) std::printf("launch failed: %s\n", cudaGetErrorString(code));
  }
  matmul_weights product(int outputs, int inputs, int runs) {
    matmul_weights made;
    const auto count = static_cast<std::size_t>(outputs) * static_cast<std::size_t>(inputs);
    made.type = shape_.float8 ? weight_type::float8_e4m3 : weight_type::bfloat16;
    made.data = shape_.float8 ? static_cast<void*>(memory_.take<std::uint8_t>(count, 0x31))
                              : memory_.take<bfloat16>(count, 0x3C);
    if (shape_.float8) {
      made.scales =
          memory_.take<float>(count / (matmul_float8_segment * matmul_scale_outputs), 0x3C);
    }
    made.outputs = outputs;
    made.inputs = made.padded_inputs = inputs;
    made.runs = runs;
    for (int run = 0; run <= runs; ++run) {
      // Canonical runs are of whole units: here of 128 inputs.
      made.run_begin[run] = made.padded_run_begin[run] = inputs / 128 * run / runs * 128;
    }
    return made;
  }
  void multiply(const matmul_weights& by, const bfloat16* input, float* output, bool gated) {
    matmul_launch what{.input = input,
                       .input_stride = by.inputs,
                       .rows = rows_,
                       .weights = &by,
                       .output = output,
                       .output_stride = by.outputs,
                       .workspace = {product_work_, product_work_bytes}};
    if (gated) {
      what.fused = gate::silu;
      what.gated = gated_;
      what.gated_stride = shape_.inner;
    }
    note(matmul(stream_, what));
  }
  void add_norm() {
    note(add_rms_norm(stream_, {.target = residual_,
                                .addend = columns_,
                                .addend_stride = shape_.hidden,
                                .norm = {.input = residual_,
                                         .input_stride = shape_.hidden,
                                         .rows = rows_,
                                         .columns = shape_.hidden,
                                         .weight = ones_,
                                         .epsilon = 1e-6F,
                                         .output = normed_,
                                         .output_stride = shape_.hidden}}));
  }
  void prepare() {
    const std::int64_t stride = qkv_columns();
    float* const keys = columns_ + shape_.heads * head_dim;
    note(prepare_heads(stream_, {.query = columns_,
                                 .query_stride = stride,
                                 .query_heads = shape_.heads,
                                 .query_weight = ones_,
                                 .key_weight = ones_,
                                 .query_epsilon = 1e-6F,
                                 .key_epsilon = 1e-6F,
                                 .cos = angles_,
                                 .sin = angles_,
                                 .write = {.keys = keys,
                                           .keys_stride = stride,
                                           .values = keys + shape_.kv_heads * head_dim,
                                           .values_stride = stride,
                                           .tokens = rows_,
                                           .cache = {.keys = keys_,
                                                     .values = values_,
                                                     .blocks = blocks_,
                                                     .heads = shape_.kv_heads,
                                                     .head_dim = head_dim},
                                           .slots = slots_}}));
  }
  // Every launch needs the same table.
  static const void* keep_table(void* state, const void* host, std::size_t bytes) {
    auto& mine = *static_cast<layer_bench*>(state);
    if (mine.attention_table_ == nullptr) {
      const auto* const begin = static_cast<const std::byte*>(host);
      mine.attention_table_ = mine.memory_.copy(std::vector<std::byte>(begin, begin + bytes));
    }
    return mine.attention_table_;
  }
  void attend() {
    note(attention(stream_, {.query = columns_,
                             .query_stride = qkv_columns(),
                             .keys = keys_,
                             .values = values_,
                             .blocks = blocks_,
                             .kv_heads = shape_.kv_heads,
                             .head_dim = head_dim,
                             .heads = shape_.heads,
                             .kv_head_of = device_kv_head_of_,
                             .host_kv_head_of = kv_head_of_.data(),
                             .sequences = sequences_,
                             .shapes = shapes_.data(),
                             .sequence_count = static_cast<std::int64_t>(shapes_.size()),
                             .scale = 0.088F,
                             .output = mixed_,
                             .output_stride = std::int64_t{shape_.heads} * head_dim,
                             .workspace = work_,
                             .workspace_bytes = work_bytes_,
                             .upload = keep_table,
                             .upload_state = this}));
  }
  void enqueue(part left_out) {
    for (const layer_weights& layer : weights_) {
      if (left_out != part::qkv) multiply(layer.qkv, normed_, columns_, false);
      if (left_out != part::heads) prepare();
      if (left_out != part::attention) attend();
      if (left_out != part::o) multiply(layer.o, mixed_, columns_, false);
      if (left_out != part::norm) add_norm();
      if (left_out != part::gate_up) multiply(layer.gate_up, normed_, nullptr, true);
      if (left_out != part::down) multiply(layer.down, gated_, columns_, false);
      if (left_out != part::norm) add_norm();
    }
  }

  cudaStream_t stream_;
  const model_shape& shape_;
  std::int64_t rows_;
  bench_memory memory_;
  std::vector<layer_weights> weights_;
  std::vector<sequence_shape> shapes_;
  std::vector<std::int32_t> kv_head_of_;
  const std::int32_t* device_kv_head_of_ = nullptr;
  const std::int32_t* tables_ = nullptr;
  const std::int64_t* slots_ = nullptr;
  const device_sequence* sequences_ = nullptr;
  std::int64_t blocks_ = 0;
  bfloat16* keys_ = nullptr;
  bfloat16* values_ = nullptr;
  float* residual_ = nullptr;
  float* columns_ = nullptr;
  bfloat16* normed_ = nullptr;
  bfloat16* mixed_ = nullptr;
  bfloat16* gated_ = nullptr;
  float* ones_ = nullptr;
  float* angles_ = nullptr;
  const void* attention_table_ = nullptr;
  std::byte* work_ = nullptr;
  std::byte* product_work_ = nullptr;
  std::size_t work_bytes_ = 0;
};

}  // namespace

void bench_layer(cudaStream_t stream, double copy_gbytes) {
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{64}, prompt_rows}) {
    for (const model_shape& model : models) {
      if (rows == prompt_rows && (model.float8 || model.hidden < 4096)) continue;
      layer_bench bench(stream, model, rows);
      const double whole = bench.us_without(part::none);
      const double bytes = bench.weight_bytes();
      const double elements = bytes / (model.float8 ? 1 : 2);
      if (rows == prompt_rows) {
        std::printf("layer %s, a prompt of %lld: %.1f us, products at %.0f TFLOP/s of the whole\n",
                    model.name, static_cast<long long>(rows), whole,
                    2.0 * elements * static_cast<double>(rows) / whole * 1e-6);
      } else {
        std::printf("layer %s, %lld rows at %lld: %.1f us, %.0f%% of copy for its weights\n",
                    model.name, static_cast<long long>(rows),
                    static_cast<long long>(decode_position), whole,
                    bytes / whole * 1e-3 / copy_gbytes * 100);
      }
      for (int i = 0; i < static_cast<int>(part::none); ++i) {
        std::printf("  %-14s %6.1f us\n", part_names[i],
                    whole - bench.us_without(static_cast<part>(i)));
      }
    }
  }
}

}  // namespace troupe::kernels::cuda
