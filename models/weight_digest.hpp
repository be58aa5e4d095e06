// The digest of a model's weights: a hash tree by which ranks know that they have the same bytes.
//
// Leaves are SHA-256 of the stored bytes of (tensor, canonical run), row by row; a share's digest
// covers the leaves of one rank, the root those of all, each in the order of (tensor, run). Neither
// depends on the sizes a gang runs with. A rank hashes its leaves while it loads, right after each
// tensor is packed and its pages are still cached; the leader goes on with those of the others, so
// that it can say what each must have. Known leaves are kept in a folder and never read again as
// long as the files keep device, inode, size and modification time.
//
// Used by one thread; leaves are hashed by the rank's pool.
//
//   TROUPE_TRY(digest, models::weight_digest::make({.files = &files, .config = config}));
//   ... digest->packed(part.name, pool) after each part, digest->finish(pool, {}) at the end
//   digest->share(where); digest->root();
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/sha256.hpp"
#include "base/vitals.hpp"
#include "kernels/thread_pool.hpp"
#include "models/weight_digest_cache.hpp"
#include "models/weight_digest_leaves.hpp"

namespace troupe::models {

struct weight_digest_options {
  const checkpoint* files = nullptr;  // borrowed
  model_config config;
  placement where;
  bool whole = false;                     // the leader: all leaves, not only those of its share
  std::filesystem::path cache_folder;     // empty: nothing is kept
  base::rank_vitals* vitals = nullptr;    // borrowed; ticked after each 16 MiB, on any thread
  std::uint64_t batch_bytes = 256 << 20;  // hashed at once: small beside the page cache, yet
                                          // enough leaves for every thread
};

class weight_digest {
 public:
  // Reads what is known already. Errors: those of plan_weight_leaves, data_loss.
  [[nodiscard]] static base::result<std::unique_ptr<weight_digest>> make(
      weight_digest_options options);

  // This rank has packed a part of that tensor. Errors: data_loss (file, tensor and cause).
  [[nodiscard]] base::result<void> packed(std::string_view tensor, kernels::thread_pool& pool);

  // Hashes what is still missing and keeps it; `progress` gets the bytes of others hashed so far.
  // Errors: data_loss (also: a file has changed since make()).
  [[nodiscard]] base::result<void> finish(kernels::thread_pool& pool,
                                          const std::function<void(std::uint64_t bytes)>& progress);

  // After finish(): of this rank; with `whole` of any. Errors: those of leaves_of.
  [[nodiscard]] base::result<base::digest> share(placement where) const;
  // After finish() with `whole`.
  [[nodiscard]] base::digest root() const;

  [[nodiscard]] const weight_leaves& leaves() const noexcept { return tree_; }
  [[nodiscard]] const leaf_digests& known() const noexcept { return known_; }
  // Units: bytes hashed so far; those missing of other ranks' leaves, 0 without `whole`.
  [[nodiscard]] std::uint64_t hashed_bytes() const noexcept { return hashed_bytes_; }
  [[nodiscard]] std::uint64_t bytes_of_others() const;
  // Why nothing could be kept, one line; empty: it was, or no folder was given.
  [[nodiscard]] const std::string& cache_problem() const noexcept { return cache_problem_; }

 private:
  explicit weight_digest(weight_digest_options options) : options_(std::move(options)) {}
  [[nodiscard]] base::result<void> hash(const std::vector<std::uint32_t>& leaves,
                                        kernels::thread_pool& pool);
  [[nodiscard]] base::result<base::digest> hash_leaf(const weight_leaf& leaf,
                                                     std::vector<std::byte>& staging);
  [[nodiscard]] base::result<void> hash_others(
      kernels::thread_pool& pool, const std::function<void(std::uint64_t bytes)>& progress);
  [[nodiscard]] base::result<void> check_unchanged() const;
  [[nodiscard]] base::digest digest_of(const std::vector<std::uint32_t>& leaves) const;
  void learn();
  void keep(const std::string& tag);
  void tick(std::uint64_t bytes) noexcept;

  weight_digest_options options_;
  weight_leaves tree_;
  std::vector<std::uint32_t> own_;  // leaves of this rank's share
  leaf_digests known_;
  std::vector<file_identity> files_;          // when made
  std::optional<weight_digest_cache> cache_;  // none: linked files, or no folder
  std::string cache_problem_;
  std::vector<std::uint32_t> pending_;  // packed and not hashed
  std::vector<bool> queued_;            // was pending once, by leaf
  bool unkept_ = false;                 // hashed since the last file was written
  std::uint64_t pending_bytes_ = 0;
  std::uint64_t hashed_bytes_ = 0;
  std::atomic<std::uint64_t> ticked_bytes_{0};
};

}  // namespace troupe::models
