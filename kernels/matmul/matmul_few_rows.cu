// Few rows of the batch: bound by reading the weights. A CTA has 16 outputs; each of its warps
// takes segments of the inputs in turn, all loads of a segment in flight at once, weights straight
// from memory into registers. The segments' sums meet in shared memory and are added in order.
#include "kernels/matmul/matmul_mma.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int outputs_of_tile = 16;
// Of a CTA; more rows of the batch need more registers.
template <int Tiles>
constexpr int warps_max = Tiles == 1 ? 16 : 8;
constexpr int chunk_inputs = 32;
constexpr int segment_chunks = matmul_segment / chunk_inputs;

// Read once: past the first-level cache, first to leave the second.
__device__ __forceinline__ uint4 load_weights(const bfloat16* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

struct segment_place {
  int run = 0;
  int input = 0;         // first, in the batch's columns
  int padded_input = 0;  // first, in the weights' columns
  int chunks = 0;
};

__device__ __forceinline__ int segments_of(const matmul_weights& weights, int run) {
  const auto padded =
      static_cast<int>(weights.padded_run_begin[run + 1] - weights.padded_run_begin[run]);
  return (padded + matmul_segment - 1) / matmul_segment;
}

__device__ __forceinline__ segment_place place_of(const matmul_weights& weights, int segment) {
  segment_place place;
  while (segment >= segments_of(weights, place.run)) segment -= segments_of(weights, place.run++);
  const int skipped = segment * matmul_segment;
  const auto begin = static_cast<int>(weights.padded_run_begin[place.run]);
  const auto end = static_cast<int>(weights.padded_run_begin[place.run + 1]);
  place.padded_input = begin + skipped;
  place.input = static_cast<int>(weights.run_begin[place.run]) + skipped;
  place.chunks = min(segment_chunks, (end - place.padded_input) / chunk_inputs);
  return place;
}

// Adds what the segments left: each run's in order, the runs in the tree, then the bias.
// Shape: sums [segments][16 outputs][tokens], this thread's cell of each.
__device__ __forceinline__ float fold(const matmul_weights& weights, const float* cell, int step) {
  float runs[matmul_runs_max];
#pragma unroll
  for (int run = 0; run < matmul_runs_max; ++run) {
    runs[run] = 0.0F;
    if (run >= weights.runs) continue;
    for (int i = segments_of(weights, run); i > 0; --i) {
      runs[run] = __fadd_rn(runs[run], *cell);
      cell += step;
    }
  }
  return tree_of_runs(runs, weights.runs);
}

// The weights of one segment: 16 outputs, all loads in flight.
struct segment_weights {
  uint4 low[segment_chunks];
  uint4 high[segment_chunks];

  __device__ __forceinline__ void load(const matmul_weights& weights, const segment_place& place,
                                       std::int64_t low_row, std::int64_t high_row) {
    const auto* const data = static_cast<const bfloat16*>(weights.data);
    const int column = place.padded_input + static_cast<int>(threadIdx.x) % 4 * 8;
    const uint4 zero = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < segment_chunks; ++i) {
      const bool inside = i < place.chunks;
      const std::int64_t at = column + i * chunk_inputs;
      low[i] = inside && low_row < weights.outputs
                   ? load_weights(data + low_row * weights.padded_inputs + at)
                   : zero;
      high[i] = inside && high_row < weights.outputs
                    ? load_weights(data + high_row * weights.padded_inputs + at)
                    : zero;
    }
  }
};

// The segment times 8 rows of the batch, into its cells of shared memory. Plain loads: the input is
// written by the kernel before, which may have ended after this one began.
__device__ __forceinline__ void multiply_segment(const matmul_kernel_args& args,
                                                 const segment_place& place,
                                                 const segment_weights& of, int first_token,
                                                 float* cell, int tokens) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const int row = first_token + lane / 4;
  const bfloat16* const input = args.input + row * args.input_stride;
  uint4 values[segment_chunks];  // all on their way before the first is needed
#pragma unroll
  for (int i = 0; i < segment_chunks; ++i) {
    const int at = place.input + lane % 4 * 8 + i * chunk_inputs;
    const bool inside = row < args.rows && at < args.weights.inputs && i < place.chunks;
    values[i] = inside ? *reinterpret_cast<const uint4*>(input + at) : make_uint4(0, 0, 0, 0);
  }
  float d[4] = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll
  for (int i = 0; i < segment_chunks; ++i) {
    if (i < place.chunks) mma_chunk(d, of.low[i], of.high[i], values[i]);
  }
  const int token = first_token + lane % 4 * 2;
  cell[lane / 4 * tokens + token] = d[0];
  cell[lane / 4 * tokens + token + 1] = d[1];
  cell[(lane / 4 + 8) * tokens + token] = d[2];
  cell[(lane / 4 + 8) * tokens + token + 1] = d[3];
}

// Adds the segments of the CTA's outputs up and writes them.
__device__ __forceinline__ void finish_outputs(const matmul_kernel_args& args, std::int64_t first,
                                               const float* sums, int tokens) {
  const bool gated = args.fused != gate::none;
  const int outputs = gated ? outputs_of_tile / 2 : outputs_of_tile;
  const int step = outputs_of_tile * tokens;
  for (int i = static_cast<int>(threadIdx.x); i < outputs * tokens;
       i += static_cast<int>(blockDim.x)) {
    const int token = i / outputs;
    const int local = i % outputs;
    if (token >= args.rows) continue;
    const float value = fold(args.weights, sums + local * tokens + token, step);
    if (gated) {
      const std::int64_t output = first / 2 + local;
      const float up = fold(args.weights, sums + (local + 8) * tokens + token, step);
      if (output < args.weights.outputs / 2) store_gated(args, token, output, value, up);
      continue;
    }
    const std::int64_t output = first + local;
    if (output >= args.weights.outputs) continue;
    args.output[token * args.output_stride + output] =
        args.bias == nullptr ? value : __fadd_rn(value, args.bias[output]);
  }
}

// `Tiles` of 8 rows of the batch.
template <int Tiles>
__global__ void __launch_bounds__(warps_max<Tiles>* warp_threads)
    few_rows_kernel(const __grid_constant__ matmul_kernel_args args, int segments) {
  extern __shared__ float sums[];  // [segments][16][8 Tiles]
  constexpr int tokens = 8 * Tiles;
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const tile_rows rows_of{args.weights.outputs, args.fused != gate::none};
  const std::int64_t first = std::int64_t{blockIdx.x} * outputs_of_tile;
  const std::int64_t low_row = rows_of.weight_row(first, lane / 4);
  const std::int64_t high_row = rows_of.weight_row(first, lane / 4 + 8);
  for (int segment = warp; segment < segments;
       segment += static_cast<int>(blockDim.x) / warp_threads) {
    const segment_place place = place_of(args.weights, segment);
    segment_weights weights;
    weights.load(args.weights, place, low_row, high_row);
    if (segment == warp) {  // weights are constants, what follows is not
      wait_for_previous();
      release_next();
    }
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      multiply_segment(args, place, weights, tile * 8, sums + segment * outputs_of_tile * tokens,
                       tokens);
    }
  }
  if (warp >= segments) wait_for_previous();
  __syncthreads();
  finish_outputs(args, first, sums, tokens);
}

int segments_in(const matmul_weights& weights) {
  std::int64_t segments = 0;
  for (int run = 0; run < weights.runs; ++run) {
    const std::int64_t padded = weights.padded_run_begin[run + 1] - weights.padded_run_begin[run];
    segments += (padded + matmul_segment - 1) / matmul_segment;
  }
  return static_cast<int>(segments);
}

std::size_t shared_bytes(const matmul_weights& weights, int tokens) {
  return static_cast<std::size_t>(segments_in(weights)) * outputs_of_tile *
         static_cast<std::size_t>(tokens) * sizeof(float);
}

// Few outputs: many warps on each, so that the device has about 20 a multiprocessor with 8 KiB of
// loads in flight each. Many: few warps, which finish more evenly.
int warps_for(int segments, int tiles, int most) {
  constexpr int wanted_each = 20;
  const int wanted = (multiprocessors() * wanted_each + tiles - 1) / tiles;
  return max(1, min(min(segments, most), max(4, wanted)));
}

template <int Tiles>
cudaError_t launch_few_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  const int segments = segments_in(args.weights);
  const std::size_t shared = shared_bytes(args.weights, 8 * Tiles);
  if (shared > 48 * 1024) {
    const cudaError_t allowed = allow_shared_memory(few_rows_kernel<Tiles>, shared);
    if (allowed != cudaSuccess) return allowed;
  }
  const auto tiles =
      static_cast<unsigned>((args.weights.outputs + outputs_of_tile - 1) / outputs_of_tile);
  const auto warps =
      static_cast<unsigned>(warps_for(segments, static_cast<int>(tiles), warps_max<Tiles>));
  return launch(stream,
                {.grid = dim3(tiles), .block = dim3(warps * warp_threads), .shared_bytes = shared},
                few_rows_kernel<Tiles>, args, segments);
}

}  // namespace

bool matmul_takes_few_rows(const matmul_weights& weights, std::int64_t rows) {
  constexpr std::size_t shared_max = 200 * 1024;  // of the 227 KiB that a Hopper CTA may have
  const int tokens = rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : 64;
  return rows <= matmul_few_rows_max && shared_bytes(weights, tokens) <= shared_max;
}

cudaError_t matmul_few_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  if (args.rows <= 8) return launch_few_rows<1>(stream, args);
  if (args.rows <= 16) return launch_few_rows<2>(stream, args);
  return args.rows <= 32 ? launch_few_rows<4>(stream, args) : launch_few_rows<8>(stream, args);
}

}  // namespace troupe::kernels::cuda
