// Few rows of the batch: bound by reading the weights. A CTA has 16 outputs; each of its warps
// takes spans of the inputs in turn, all loads of a span in flight at once, weights straight from
// memory into registers. The segments' sums meet in shared memory and are added in order.
#include "kernels/matmul/matmul_mma.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int outputs_of_tile = 16;
constexpr int quad_lanes = 4;  // hold one row of a step
constexpr int step_inputs = 16;
constexpr int span_loads = 8;  // of 16 bytes a lane and output
// Of a CTA; more rows of the batch need more registers.
template <int Tiles>
constexpr int warps_max = Tiles == 1 ? 16 : 8;

template <weight_type Type>
struct traits {
  static constexpr bool narrow = Type == weight_type::float8_e4m3;
  static constexpr int segment = narrow ? matmul_float8_segment : matmul_segment;
  static constexpr int load_inputs = narrow ? 64 : 32;  // of a row, by one load of its four lanes
  static constexpr int load_steps = load_inputs / step_inputs;
  static constexpr int span = span_loads * load_inputs;
  static constexpr int span_segments = span / segment;
  static constexpr int segment_steps = segment / step_inputs;
};

// Read once: past the first-level cache, first to leave the second.
__device__ __forceinline__ uint4 load_weights(const std::byte* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// bfloat16: a step needs 4 of its 16 inputs from each lane, a load brings each lane 16 bytes in a
// row. So pairs of lanes trade: afterwards a lane holds inputs 4 g .. 4 g + 3 of two steps, the
// first in (x, y), the second in (z, w); g is its number in the quad with the bits swapped. Float8
// weights lie as they are needed.
__device__ __forceinline__ void trade(uint4& v) {
  const bool upper = (threadIdx.x & 2U) != 0;
  const std::uint32_t a = __shfl_xor_sync(0xFFFFFFFFU, upper ? v.x : v.z, 2);
  const std::uint32_t b = __shfl_xor_sync(0xFFFFFFFFU, upper ? v.y : v.w, 2);
  v = upper ? make_uint4(a, b, v.z, v.w) : make_uint4(v.x, v.y, a, b);
}

// This lane's 4 weights of a step, as bfloat16, after the trade.
template <weight_type Type>
__device__ __forceinline__ uint2 step_weights(const uint4& v, int step) {
  if constexpr (Type == weight_type::bfloat16) {
    return step == 0 ? make_uint2(v.x, v.y) : make_uint2(v.z, v.w);
  } else {
    const std::uint32_t four = step == 0 ? v.x : step == 1 ? v.y : step == 2 ? v.z : v.w;
    return make_uint2(float8_pair<false>(four), float8_pair<true>(four));
  }
}
__host__ __device__ __forceinline__ int padded_run(const matmul_weights& weights, int run) {
  return static_cast<int>(weights.padded_run_begin[run + 1] - weights.padded_run_begin[run]);
}
__host__ __device__ __forceinline__ int pieces(int inputs, int piece) {
  return (inputs + piece - 1) / piece;
}

struct span_place {
  int input = 0;         // first, in the batch's columns
  int padded_input = 0;  // first, in the weights' columns
  int inputs = 0;        // padded; a multiple of load_inputs
  int segment = 0;       // first, of all
};

template <weight_type Type>
__device__ __forceinline__ span_place place_of(const matmul_weights& weights, int span) {
  using of = traits<Type>;
  span_place place;
  int run = 0;
  for (; span >= pieces(padded_run(weights, run), of::span); ++run) {
    span -= pieces(padded_run(weights, run), of::span);
    place.segment += pieces(padded_run(weights, run), of::segment);
  }
  const int skipped = span * of::span;
  place.segment += span * of::span_segments;
  place.padded_input = static_cast<int>(weights.padded_run_begin[run]) + skipped;
  place.input = static_cast<int>(weights.run_begin[run]) + skipped;
  place.inputs = min(of::span, padded_run(weights, run) - skipped);
  return place;
}

// The weights of one span: 16 outputs, all loads in flight.
template <weight_type Type>
struct span_weights {
  uint4 low[span_loads];
  uint4 high[span_loads];

  __device__ __forceinline__ void load(const matmul_weights& weights, const span_place& place,
                                       std::int64_t low_row, std::int64_t high_row) {
    constexpr int element = traits<Type>::narrow ? 1 : 2;
    const auto* const data = static_cast<const std::byte*>(weights.data) +
                             place.padded_input * element +
                             static_cast<int>(threadIdx.x) % quad_lanes * 16;
    const std::int64_t row_bytes = weights.padded_inputs * element;
    const bool low_inside = low_row < weights.outputs;
    const bool high_inside = high_row < weights.outputs;
    const uint4 zero = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < span_loads; ++i) {
      const bool inside = i * traits<Type>::load_inputs < place.inputs;
      const int at = i * traits<Type>::load_inputs * element;
      low[i] = inside && low_inside ? load_weights(data + low_row * row_bytes + at) : zero;
      high[i] = inside && high_inside ? load_weights(data + high_row * row_bytes + at) : zero;
    }
  }
  __device__ __forceinline__ void trade_all() {
    if constexpr (Type == weight_type::bfloat16) {
#pragma unroll
      for (int i = 0; i < span_loads; ++i) {
        trade(low[i]);
        trade(high[i]);
      }
    }
  }
};

// What a warp multiplies by a segment of its span: 8 rows of the batch. Plain loads: the input is
// written by the kernel before, which may have ended after this one began.
template <weight_type Type>
struct segment_inputs_of {
  uint2 steps[traits<Type>::segment_steps];

  __device__ __forceinline__ void load(const matmul_kernel_args& args, const span_place& place,
                                       int part, int first_token) {
    const int lane = static_cast<int>(threadIdx.x) % warp_threads;
    const int row = first_token + lane / quad_lanes;
    const int skipped = part * traits<Type>::segment;
    const int first = place.input + skipped;
    const bfloat16* const input = args.input + row * args.input_stride;
    // A row's end is a multiple of 8, which no load goes across; padding of the run is a multiple
    // of 16 behind it. `until`: where this row has no more inputs, or this segment.
    const auto inputs = static_cast<int>(args.weights.inputs);
    const int until = row < args.rows ? min(inputs, place.input + place.inputs) : 0;
#pragma unroll
    for (int i = 0; i < traits<Type>::segment_steps; ++i) {
      steps[i] = make_uint2(0, 0);
      if constexpr (Type == weight_type::bfloat16) {
        const int at = first + i * step_inputs + (lane % 2 * 2 + lane / 2 % 2) * 4;
        if (at < until) steps[i] = *reinterpret_cast<const uint2*>(input + at);
      } else {
        const int at = first + i * step_inputs + lane % quad_lanes * 2;
        if (at < until) steps[i].x = *reinterpret_cast<const std::uint32_t*>(input + at);
        if (at + 8 < until) steps[i].y = *reinterpret_cast<const std::uint32_t*>(input + at + 8);
      }
    }
  }
};

// Segment `part` of the span times 8 rows of the batch, into its cells of shared memory.
template <weight_type Type>
__device__ __forceinline__ void multiply_segment(const span_place& place,
                                                 const span_weights<Type>& of,
                                                 const segment_inputs_of<Type>& inputs, int part,
                                                 float* cell, int tokens) {
  using traits_of = traits<Type>;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const int skipped = part * traits_of::segment;
  float d[4] = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll
  for (int i = 0; i < traits_of::segment_steps; ++i) {
    if (skipped + i * step_inputs >= place.inputs) continue;
    const int load = (skipped / step_inputs + i) / traits_of::load_steps;
    const uint2 low = step_weights<Type>(of.low[load], i % traits_of::load_steps);
    const uint2 high = step_weights<Type>(of.high[load], i % traits_of::load_steps);
    mma_step(d, low.x, high.x, low.y, high.y, inputs.steps[i].x, inputs.steps[i].y);
  }
  float* const low_cell = cell + lane / quad_lanes * tokens + lane % quad_lanes * 2;
  float* const high_cell = low_cell + 8 * tokens;
  low_cell[0] = d[0];
  low_cell[1] = d[1];
  high_cell[0] = d[2];
  high_cell[1] = d[3];
}

// Adds what the segments left for an output: each run's in order, the runs in the tree.
// Shape: sums [segments][16 outputs][tokens], this thread's cell of each.
template <weight_type Type>
__device__ __forceinline__ float fold(const matmul_weights& weights, std::int64_t output,
                                      const float* cell, int step) {
  const segment_scales scales(weights, output);
  float runs[matmul_runs_max];
#pragma unroll
  for (int run = 0; run < matmul_runs_max; ++run) {
    runs[run] = 0.0F;
    if (run >= weights.runs) continue;
    const auto end = static_cast<int>(weights.padded_run_begin[run + 1]);
    for (auto at = static_cast<int>(weights.padded_run_begin[run]); at < end;
         at += traits<Type>::segment) {
      runs[run] = __fmaf_rn(scales.at(at), *cell, runs[run]);
      cell += step;
    }
  }
  return tree_of_runs(runs, weights.runs);
}

// Adds the segments of the CTA's outputs up, with the bias, and writes them.
template <weight_type Type>
__device__ __forceinline__ void finish_outputs(const matmul_kernel_args& args, std::int64_t first,
                                               const float* sums, int tokens) {
  const bool gated = args.fused != gate::none;
  const tile_rows rows_of{args.weights.outputs, gated};
  const int outputs = gated ? outputs_of_tile / 2 : outputs_of_tile;
  const int step = outputs_of_tile * tokens;
  for (int i = static_cast<int>(threadIdx.x); i < outputs * tokens;
       i += static_cast<int>(blockDim.x)) {
    const int token = i / outputs;
    const int local = i % outputs;
    const std::int64_t output = rows_of.weight_row(first, local);
    if (token >= args.rows || output >= args.weights.outputs) continue;
    const float value = fold<Type>(args.weights, output, sums + local * tokens + token, step);
    if (gated) {
      const float up = fold<Type>(args.weights, rows_of.weight_row(first, local + 8),
                                  sums + (local + 8) * tokens + token, step);
      store_gated(args, token, output, value, up);
      continue;
    }
    args.output[token * args.output_stride + output] =
        args.bias == nullptr ? value : __fadd_rn(value, args.bias[output]);
  }
}

// `Tiles` of 8 rows of the batch.
template <weight_type Type, int Tiles>
__global__ void __launch_bounds__(warps_max<Tiles>* warp_threads)
    few_rows_kernel(const __grid_constant__ matmul_kernel_args args, int spans) {
  extern __shared__ float sums[];  // [segments][16][8 Tiles]
  constexpr int tokens = 8 * Tiles;
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const tile_rows rows_of{args.weights.outputs, args.fused != gate::none};
  const std::int64_t first = std::int64_t{blockIdx.x} * outputs_of_tile;
  const std::int64_t low_row = rows_of.weight_row(first, lane / quad_lanes);
  const std::int64_t high_row = rows_of.weight_row(first, lane / quad_lanes + 8);
  for (int span = warp; span < spans; span += static_cast<int>(blockDim.x) / warp_threads) {
    const span_place place = place_of<Type>(args.weights, span);
    span_weights<Type> weights;
    weights.load(args.weights, place, low_row, high_row);
    if (span == warp) {  // weights are constants, what follows is not
      wait_for_previous();
      release_next();
    }
    // One segment and tile ahead, so that no load is waited for twice.
    constexpr int products = traits<Type>::span_segments * Tiles;
    segment_inputs_of<Type> inputs[products > 1 ? 2 : 1];
    inputs[0].load(args, place, 0, 0);
    weights.trade_all();
#pragma unroll
    for (int i = 0; i < products; ++i) {
      if (i + 1 < products) {
        inputs[(i + 1) % 2].load(args, place, (i + 1) / Tiles, (i + 1) % Tiles * 8);
      }
      const int part = i / Tiles;
      if (part * traits<Type>::segment >= place.inputs) break;
      multiply_segment(place, weights, inputs[products > 1 ? i % 2 : 0], part,
                       sums + (place.segment + part) * outputs_of_tile * tokens + i % Tiles * 8,
                       tokens);
    }
  }
  if (warp >= spans) wait_for_previous();
  __syncthreads();
  finish_outputs<Type>(args, first, sums, tokens);
}

// Of all runs, in pieces of so many inputs.
int pieces_of_runs(const matmul_weights& weights, int piece) {
  int count = 0;
  for (int run = 0; run < weights.runs; ++run) count += pieces(padded_run(weights, run), piece);
  return count;
}

std::size_t shared_bytes(const matmul_weights& weights, int tokens) {
  const int segment =
      weights.type == weight_type::float8_e4m3 ? matmul_float8_segment : matmul_segment;
  return static_cast<std::size_t>(pieces_of_runs(weights, segment)) * outputs_of_tile *
         static_cast<std::size_t>(tokens) * sizeof(float);
}

// A multiprocessor has registers for 16 warps of few rows. As many on each tile as still let all
// tiles run at once; where they cannot, few, so that one CTA loads while another one ends.
int warps_for(int spans, int tiles, int most) {
  constexpr int resident = 16;
  constexpr int least = 4;
  int warps = most;
  while (warps > least && multiprocessors() * (resident / warps) < tiles) warps /= 2;
  return max(1, min(spans, warps));
}

template <weight_type Type, int Tiles>
cudaError_t launch_few_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  const int spans = pieces_of_runs(args.weights, traits<Type>::span);
  const std::size_t shared = shared_bytes(args.weights, 8 * Tiles);
  if (shared > 48 * 1024) {
    const cudaError_t allowed = allow_shared_memory(few_rows_kernel<Type, Tiles>, shared);
    if (allowed != cudaSuccess) return allowed;
  }
  const auto tiles =
      static_cast<unsigned>((args.weights.outputs + outputs_of_tile - 1) / outputs_of_tile);
  const auto warps =
      static_cast<unsigned>(warps_for(spans, static_cast<int>(tiles), warps_max<Tiles>));
  return launch(stream,
                {.grid = dim3(tiles), .block = dim3(warps * warp_threads), .shared_bytes = shared},
                few_rows_kernel<Type, Tiles>, args, spans);
}

template <weight_type Type>
cudaError_t launch_tiles(cudaStream_t stream, const matmul_kernel_args& args) {
  if (args.rows <= 8) return launch_few_rows<Type, 1>(stream, args);
  if (args.rows <= 16) return launch_few_rows<Type, 2>(stream, args);
  if (args.rows <= 32) return launch_few_rows<Type, 4>(stream, args);
  return launch_few_rows<Type, 8>(stream, args);
}

}  // namespace

bool matmul_takes_few_rows(const matmul_weights& weights, std::int64_t rows) {
  constexpr std::size_t shared_max = 200 * 1024;  // of the 227 KiB that a Hopper CTA may have
  const int tokens = rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : 64;
  return rows <= matmul_few_rows_max && shared_bytes(weights, tokens) <= shared_max;
}

cudaError_t matmul_few_rows(cudaStream_t stream, const matmul_kernel_args& args) {
  if (args.weights.type == weight_type::float8_e4m3) {
    return launch_tiles<weight_type::float8_e4m3>(stream, args);
  }
  return launch_tiles<weight_type::bfloat16>(stream, args);
}

}  // namespace troupe::kernels::cuda
