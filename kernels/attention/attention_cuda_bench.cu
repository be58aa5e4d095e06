// Attention of a real layer on CUDA: share of the copy bandwidth for one row, rate for many.
#include <cstdio>
#include <vector>

#include "kernels/attention/attention.cuh"
#include "kernels/cuda/bench_fill.cuh"
#include "kernels/cuda/bench_memory.cuh"
#include "kernels/cuda/bench_timer.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int heads = 32;
constexpr int kv_heads = 8;
constexpr int head_dim = 128;

// The tables that a launch uploads: kept for the next launch, which has the same.
struct uploads {
  bench_memory* memory;
  const void* table = nullptr;
};

struct attention_problem {
  std::int64_t sequences = 1;
  std::int64_t first = 0;
  std::int64_t rows = 1;
};

struct measured {
  double us = 0.0;
  std::vector<std::byte> bits;
};

measured measure(cudaStream_t stream, const attention_problem& of, bool without_wgmma) {
  const auto [sequences, first, rows] = of;
  bench_memory memory;
  const std::int64_t positions = first + rows;
  const std::int64_t blocks_each = (positions + 15) / 16;
  const std::int64_t blocks = blocks_each * sequences;
  std::vector<std::int32_t> table;
  for (std::int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<std::int32_t>(i));
  const std::int32_t* const tables = memory.copy(table);
  std::vector<device_sequence> described;
  std::vector<sequence_shape> shapes;
  for (std::int64_t i = 0; i < sequences; ++i) {
    described.push_back({i * rows, rows, first, tables + i * blocks_each, blocks_each});
    shapes.push_back({rows, positions});
  }
  std::vector<std::int32_t> kv_head_of;
  for (int head = 0; head < heads; ++head) kv_head_of.push_back(head * kv_heads / heads);
  const auto cache_elements = static_cast<std::size_t>(blocks * 16 * kv_heads * head_dim);
  const auto tokens = static_cast<std::size_t>(sequences * rows);
  const std::size_t work = attention_workspace_bytes(sequences, positions, heads, head_dim);
  uploads kept{&memory};
  const attention_launch what{
      .query = take_random<float>(memory, tokens * heads * head_dim),
      .query_stride = heads * head_dim,
      .keys = take_random<bfloat16>(memory, cache_elements),
      .values = take_random<bfloat16>(memory, cache_elements),
      .blocks = blocks,
      .kv_heads = kv_heads,
      .head_dim = head_dim,
      .heads = heads,
      .kv_head_of = memory.copy(kv_head_of),
      .host_kv_head_of = kv_head_of.data(),
      .sequences = memory.copy(described),
      .shapes = shapes.data(),
      .sequence_count = sequences,
      .scale = 0.088F,
      .output = memory.take<bfloat16>(tokens * heads * head_dim, 0),
      .output_stride = heads * head_dim,
      .workspace = memory.take<std::byte>(work, 0),
      .workspace_bytes = work,
      .upload =
          [](void* state, const void* host, std::size_t bytes) {
            auto& mine = *static_cast<uploads*>(state);
            if (mine.table == nullptr) {
              const auto* const begin = static_cast<const std::byte*>(host);
              mine.table = mine.memory->copy(std::vector<std::byte>(begin, begin + bytes));
            }
            return mine.table;
          },
      .upload_state = &kept,
      .without_wgmma = without_wgmma};
  cudaDeviceSynchronize();
  measured made;
  made.us = median_us(stream, 9, 4, [&](int) {
    const cudaError_t code = attention(stream, what);
    if (code != cudaSuccess) std::printf("launch failed: %s\n", cudaGetErrorString(code));
  });
  made.bits.resize(tokens * heads * head_dim * sizeof(bfloat16));
  cudaMemcpy(made.bits.data(), what.output, made.bits.size(), cudaMemcpyDeviceToHost);
  return made;
}

}  // namespace

void bench_attention(cudaStream_t stream, double copy_gbytes) {
  std::printf("%-18s %6s %9s %10s %10s %8s\n", "attention, 1 row", "seqs", "positions", "us",
              "GB/s", "of copy");
  for (const std::int64_t sequences : {1, 16, 64}) {
    for (const std::int64_t positions : {512, 4096, 32'768}) {
      const double us = measure(stream, {.sequences = sequences, .first = positions - 1}, false).us;
      const double gbytes =
          static_cast<double>(sequences * positions * kv_heads * head_dim) * 4 / us * 1e-3;
      std::printf("%-18s %6lld %9lld %10.1f %10.0f %7.0f%%\n", "32/8 heads of 128",
                  static_cast<long long>(sequences), static_cast<long long>(positions), us, gbytes,
                  100 * gbytes / copy_gbytes);
    }
  }
  std::printf("%-18s %6s %7s %10s %10s\n", "attention, causal", "rows", "kernel", "us", "TFLOP/s");
  for (const std::int64_t rows : {512, 2048, 8192, 32'768}) {
    std::vector<std::byte> bits;
    for (const bool without_wgmma : {true, false}) {
      const measured got = measure(stream, {.rows = rows}, without_wgmma);
      const double tflops = 2.0 * static_cast<double>(rows * rows) * heads * head_dim / got.us *
                            1e-6;  // half of the square
      const bool same = bits.empty() || bits == got.bits;
      bits = got.bits;
      std::printf("%-18s %6lld %7s %10.1f %10.1f%s\n", "32/8 heads of 128",
                  static_cast<long long>(rows), without_wgmma ? "mma" : "wgmma", got.us, tflops,
                  same ? "" : "  OTHER BITS");
    }
  }
}

}  // namespace troupe::kernels::cuda
