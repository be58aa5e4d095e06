// Reads one rank's slices of a checkpoint and packs them; or only counts what they would take.
//
// The same calls that load a model also plan it: with `plan_only` nothing is read or allocated, but
// every tensor's name, shape and dtype is checked and its packed bytes are counted, which is what
// `troupe inspect` prints. Peak memory while loading is the packed share plus one staging buffer
// a thread (staging_bytes_max).
//
// A matrix stored as float8_e4m3 in blocks is dequantised to the model's dtype, or rounded to
// integers from there (`round_to`); a device that
// computes in bfloat16 keeps its codes where the canonical grid cuts the matrix at multiples of 128
// inputs and 16 outputs only, the same on every rank and for every tensor-parallel size.
//
//   models::weight_reader reader({.files = &files, .type = dtype::bfloat16, .pool = &pool});
//   TROUPE_TRY(w, reader.matrix({{{"model.norm.q_proj.weight", {0, 512}, {0, 1024}, 1024, 1024}}},
//   {1024}));
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/vitals.hpp"
#include "kernels/packed_tensor.hpp"
#include "kernels/thread_pool.hpp"
#include "models/checkpoint.hpp"
#include "models/float8_scales.hpp"
#include "models/grid.hpp"
#include "models/matrix_part.hpp"

namespace troupe::models {

struct vector_part {
  std::string name;
  range elements;
  std::int64_t all_elements = 0;
};

struct weight_reader_options {
  const checkpoint* files = nullptr;  // borrowed; outlives the reader
  kernels::dtype type = kernels::dtype::bfloat16;
  kernels::thread_pool* pool = nullptr;  // borrowed; nullptr only with plan_only
  kernels::device* on = nullptr;         // where matrices go; null: the CPU. Borrowed
  bool plan_only = false;
  bool plan_for_device = false;  // with plan_only: matrices would go to one
  // int8_runs or int4_groups: what matrices on the CPU are rounded to; the vocabulary's, whose rows
  // are embeddings too, to int8 either way. Others round nothing.
  kernels::quantisation round_to = kernels::quantisation::none;
  // Called after each tensor with the packed bytes so far, on the thread that loads.
  std::function<void(std::uint64_t bytes)> progress;
  base::rank_vitals* vitals = nullptr;  // borrowed; ticked after each 16 MiB read, on any thread
  // Called after each part is packed (with plan_only: counted), on the thread that loads; elements
  // of a vector are columns of its one row. An error ends the load.
  std::function<base::result<void>(const matrix_part& part)> after_part = {};
  // With plan_only and no files: every tensor is taken to be there, and is noted here.
  std::vector<tensor_info>* asked = nullptr;
};

class weight_reader {
 public:
  // Large enough for whole pages of many rows, small enough to stay in a core's second-level cache.
  static constexpr std::size_t staging_bytes_max = std::size_t{1} << 20;

  explicit weight_reader(weight_reader_options options);

  // Whether config.json says that matrices may be float8_e4m3; no until models::load tells.
  void take_float8(bool said) noexcept { takes_float8_ = said; }

  // Stacks parts on top of each other into one packed matrix of the model's dtype. Without `cuts`
  // it is of the vocabulary: it never stays as the file has it quantised.
  // Errors: not_found, invalid_argument (shape or dtype: tensor, found, expected), data_loss,
  // resource_exhausted.
  [[nodiscard]] base::result<kernels::packed_tensor> matrix(
      const std::vector<matrix_part>& parts, std::vector<std::int64_t> run_ends,
      const std::optional<matrix_cuts>& cuts = std::nullopt);

  // Concatenates parts as float32: norm weights and biases.
  [[nodiscard]] base::result<std::vector<float>> vector(const std::vector<vector_part>& parts);

  // Units: bytes of packed matrices and vectors so far.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] kernels::dtype type() const noexcept { return options_.type; }
  // Matrices that a device has had to dequantise, and why, in one line; empty: none.
  [[nodiscard]] std::string why_dequantised() const;

 private:
  // Null without files.
  [[nodiscard]] base::result<const tensor_info*> checked(
      const std::string& name, const std::vector<std::int64_t>& shape) const;
  [[nodiscard]] base::result<kernels::quantisation> kind_of(const std::vector<matrix_part>& parts,
                                                            const std::optional<matrix_cuts>& cuts);
  [[nodiscard]] base::result<kernels::packed_tensor> pack_parts(
      const std::vector<matrix_part>& parts, kernels::packed_shape shape);
  struct packing;
  struct staging {
    std::vector<std::byte> stored;
    std::vector<float> values;  // of float8_e4m3 that is dequantised
  };
  [[nodiscard]] base::result<void> pack_part(const packing& of, kernels::packed_tensor& into);
  [[nodiscard]] base::result<void> pack_rows(const packing& of, range rows, staging& through,
                                             kernels::packed_tensor& into);
  [[nodiscard]] base::result<void> tell(const std::vector<matrix_part>& parts) const;
  void count(std::uint64_t bytes);
  void tick(std::uint64_t bytes) noexcept;

  weight_reader_options options_;
  std::vector<staging> staging_;  // one a thread
  bool takes_float8_ = false;
  std::vector<std::string> dequantised_;
  std::uint64_t bytes_ = 0;
  std::uint64_t read_bytes_ = 0;  // of matrices, by all threads: through an atomic_ref
};

}  // namespace troupe::models
