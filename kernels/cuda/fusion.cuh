// Neighbouring ops that are one kernel: an op waits here until the next one tells whether they
// belong together. The bits are those of the separate kernels; what is saved is launches and trips
// through memory.
//
//   norms of query and key heads, both rotations, write_kv   -> prepare_heads
//   both rotations, write_kv                                  -> prepare_heads
//   add, rms_norm of its target                               -> add_rms_norm
//   matmul, gated_activation of its halves                    -> matmul with a gate
//
// Whatever else is enqueued, recorded, read or waited for flushes first.
#pragma once

#include <variant>
#include <vector>

#include "kernels/matmul/matmul.cuh"
#include "kernels/ops.hpp"

namespace troupe::kernels::cuda {

class cuda_queue;

// Ops with their host spans resolved to device addresses.
struct norm_op {
  tensor_view input;
  const float* weight = nullptr;
  float epsilon = 0.0F;
  tensor_view output;
};
struct rotary_op {
  tensor_view heads;
  const float* cos = nullptr;
  const float* sin = nullptr;
};
struct write_op {
  tensor_view keys;
  tensor_view values;
  kv_view cache;
  const std::int64_t* slots = nullptr;
};
struct add_op {
  tensor_view target;
  tensor_view addend;
  const float* bias = nullptr;
};
struct matmul_op {
  tensor_view input;
  matmul_weights weights;
  const float* bias = nullptr;
  tensor_view output;
};
struct gated_op {
  tensor_view gate_columns;
  tensor_view up_columns;
  gate kind = gate::silu;
  tensor_view output;
};
using waiting_op = std::variant<norm_op, rotary_op, write_op, add_op, matmul_op, gated_op>;

class fusion {
 public:
  explicit fusion(cuda_queue& on) : on_(on) {}

  // Launches what is complete, keeps what may still be joined.
  void enqueue(waiting_op op);
  // Launches everything that waits.
  void flush();

 private:
  enum class match : std::uint8_t { none, prefix, whole };
  [[nodiscard]] match match_heads() const;
  [[nodiscard]] match match_add_norm() const;
  [[nodiscard]] match match_gate() const;
  void launch_heads();
  void launch_add_norm();
  void launch_gate();
  [[nodiscard]] matmul_launch product(const matmul_op& op) const;  // without a workspace
  void multiply(matmul_launch what);

  void launch(const norm_op& op);
  void launch(const rotary_op& op);
  void launch(const write_op& op);
  void launch(const add_op& op);
  void launch(const matmul_op& op);
  void launch(const gated_op& op);

  cuda_queue& on_;
  std::vector<waiting_op> waiting_;
};

}  // namespace troupe::kernels::cuda
