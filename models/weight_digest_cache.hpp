// Digests of leaves kept in a folder between runs: each rank process writes one file of its own and
// reads those of all, so nothing is merged and no two writers meet.
//
// A file is found by its key, which stands for the content: identities of the model's files and the
// layout of the leaves. What is read is untrusted: a file that is not ours, too long, cut off,
// altered or of another key counts as absent, and where two files differ in a leaf, all do.
//
//   models::weight_digest_cache cache(state_dir / "digests", key);
//   auto known = cache.read(leaves.size());
//   TROUPE_TRY_VOID(cache.write("tp0of2-pp0of1", known));
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/sha256.hpp"

namespace troupe::models {

using leaf_digests = std::vector<std::optional<base::digest>>;  // parallel to the leaves

struct digest_cache_limits {
  static constexpr std::size_t files_max = 256;  // that stay in the folder; the oldest go
  static constexpr std::size_t seen_max = 4096;  // entries of the folder that are looked at
};

class weight_digest_cache {
 public:
  weight_digest_cache(std::filesystem::path folder, const base::digest& key)
      : folder_(std::move(folder)), key_(key) {}

  // What is known of `leaves` leaves. Never fails: what cannot be read is not known.
  [[nodiscard]] leaf_digests read(std::size_t leaves) const;

  // Replaces the file called `tag` in one step; makes the folder where it is missing.
  // Errors: unavailable (the folder cannot be written: path and cause).
  [[nodiscard]] base::result<void> write(std::string_view tag, const leaf_digests& known) const;

 private:
  [[nodiscard]] std::string prefix() const;
  void remove_oldest() const;

  std::filesystem::path folder_;
  base::digest key_;
};

}  // namespace troupe::models
