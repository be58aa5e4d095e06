// One rank's share of the KV cache: for every layer of its stage, K and V of its heads.
//
// Layout: one contiguous extent per (layer, kv_head, block of 16 tokens), K and V apart, inside it
// [token][head_dim]. Memory is reserved whole and costs nothing until a block is first written.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "kernels/buffer.hpp"
#include "kernels/device.hpp"
#include "kernels/ops.hpp"
#include "models/placement.hpp"

namespace troupe::engine {

class kv_cache {
 public:
  // Units: bytes of one block of 16 positions over all layers of the rank's stage, K and V.
  [[nodiscard]] static std::int64_t block_bytes(const models::model_config& config,
                                                models::placement where, kernels::dtype type);

  struct request {
    const models::model_config& config;
    models::placement where;
    kernels::dtype type = kernels::dtype::bfloat16;
    std::int64_t blocks = 0;
    kernels::device* on = nullptr;  // null: the CPU
  };
  // Errors: resource_exhausted.
  [[nodiscard]] static base::result<kv_cache> allocate(const request& of);

  [[nodiscard]] std::span<const kernels::kv_view> layers() const noexcept { return layers_; }

 private:
  kernels::buffer memory_;
  std::vector<kernels::kv_view> layers_;
};

}  // namespace troupe::engine
