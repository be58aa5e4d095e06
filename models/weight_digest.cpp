#include "models/weight_digest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <span>
#include <utility>

#include "base/check.hpp"

namespace troupe::models {
namespace {

// As large as the loader's own staging: stays in a core's second-level cache.
constexpr std::size_t staging_bytes = std::size_t{1} << 20;

// What the cached digests hang on. Paths are not in it: a link to the same file is the same file.
base::digest cache_key(const std::vector<file_identity>& files, const weight_leaves& tree) {
  base::sha256 hash;
  for (const file_identity& file : files) {
    hash.update(fmt::format("device {} inode {} bytes {} modified {}\n", file.device, file.inode,
                            file.bytes, file.modified_ns));
  }
  hash.update(base::to_hex(tree.layout_digest()));
  return hash.finish();
}

std::string tag_of(placement where) {
  return fmt::format("tp{}of{}-pp{}of{}", where.tp_rank, where.tp_size, where.pp_rank,
                     where.pp_size);
}

}  // namespace

base::result<std::unique_ptr<weight_digest>> weight_digest::make(weight_digest_options options) {
  TROUPE_CHECK(options.files != nullptr);
  std::unique_ptr<weight_digest> made(new weight_digest(std::move(options)));
  const weight_digest_options& own = made->options_;
  TROUPE_TRY(tree, plan_weight_leaves(*own.files, own.config));
  made->tree_ = std::move(tree);
  TROUPE_TRY(leaves, leaves_of(made->tree_, own.config, own.where));
  made->own_ = std::move(leaves);
  made->known_.resize(made->tree_.leaves.size());
  made->queued_.resize(made->tree_.leaves.size());
  TROUPE_TRY(files, own.files->identities());
  made->files_ = std::move(files);
  if (!own.cache_folder.empty() && !made->files_.empty()) {
    made->cache_.emplace(own.cache_folder, cache_key(made->files_, made->tree_));
    made->learn();
  }
  return made;
}

void weight_digest::learn() {
  leaf_digests read = cache_->read(known_.size());
  for (std::size_t i = 0; i < read.size(); ++i) {
    if (!known_[i]) known_[i] = read[i];
  }
}

base::result<void> weight_digest::packed(std::string_view tensor, kernels::thread_pool& pool) {
  const auto name_of = [this](std::uint32_t leaf) -> std::string_view {
    return tree_.leaves[leaf].tensor->name;
  };
  const auto same = std::ranges::equal_range(own_, tensor, {}, name_of);
  for (const std::uint32_t leaf : same) {
    if (known_[leaf] || queued_[leaf]) continue;
    queued_[leaf] = true;
    pending_.push_back(leaf);
    pending_bytes_ += tree_.leaves[leaf].bytes();
  }
  if (pending_bytes_ < options_.batch_bytes) return {};
  pending_bytes_ = 0;
  return hash(std::exchange(pending_, {}), pool);
}

base::result<void> weight_digest::finish(kernels::thread_pool& pool,
                                         const std::function<void(std::uint64_t bytes)>& progress) {
  pending_.clear();
  pending_bytes_ = 0;
  std::vector<std::uint32_t> rest;
  std::ranges::copy_if(own_, std::back_inserter(rest),
                       [this](std::uint32_t leaf) { return !known_[leaf]; });
  TROUPE_TRY_VOID(hash(rest, pool));
  TROUPE_TRY_VOID(check_unchanged());
  keep(tag_of(options_.where));
  if (!options_.whole || bytes_of_others() == 0) return {};
  TROUPE_TRY_VOID(hash_others(pool, progress));
  TROUPE_TRY_VOID(check_unchanged());
  keep("whole");
  return {};
}

// Ranks of this host write theirs meanwhile: each of those is one less to hash here.
base::result<void> weight_digest::hash_others(
    kernels::thread_pool& pool, const std::function<void(std::uint64_t bytes)>& progress) {
  const std::uint64_t before = hashed_bytes_;
  for (std::size_t next = 0; next < known_.size();) {
    if (cache_) learn();
    std::vector<std::uint32_t> batch;
    std::uint64_t bytes = 0;
    for (; next < known_.size() && bytes < options_.batch_bytes; ++next) {
      if (known_[next]) continue;
      batch.push_back(static_cast<std::uint32_t>(next));
      bytes += tree_.leaves[next].bytes();
    }
    TROUPE_TRY_VOID(hash(batch, pool));
    if (progress) progress(hashed_bytes_ - before);
  }
  return {};
}

// Largest first, so that no thread is left with a large one at the end.
base::result<void> weight_digest::hash(const std::vector<std::uint32_t>& leaves,
                                       kernels::thread_pool& pool) {
  std::vector<std::uint32_t> order = leaves;
  std::ranges::stable_sort(order, std::greater(),
                           [this](std::uint32_t leaf) { return tree_.leaves[leaf].bytes(); });
  std::vector<std::vector<std::byte>> staging(static_cast<std::size_t>(pool.threads()));
  std::mutex failure_mutex;
  std::optional<base::error> failure;
  pool.parallel_for(static_cast<std::int64_t>(order.size()), [&](std::int64_t index, int thread) {
    const std::uint32_t leaf = order[static_cast<std::size_t>(index)];
    auto hashed = hash_leaf(tree_.leaves[leaf], staging[static_cast<std::size_t>(thread)]);
    if (hashed) {
      known_[leaf] = *hashed;
    } else {
      const std::scoped_lock lock(failure_mutex);
      failure = std::move(hashed).error();
    }
  });
  if (failure) return tl::unexpected(*std::move(failure));
  unkept_ = unkept_ || !order.empty();
  for (const std::uint32_t leaf : order) hashed_bytes_ += tree_.leaves[leaf].bytes();
  return {};
}

base::result<base::digest> weight_digest::hash_leaf(const weight_leaf& leaf,
                                                    std::vector<std::byte>& staging) {
  staging.resize(staging_bytes);
  base::sha256 hash;
  const auto element = static_cast<std::uint64_t>(size_of(leaf.tensor->dtype));
  const auto stride = static_cast<std::uint64_t>(leaf.all_inputs) * element;
  std::uint64_t row_bytes = static_cast<std::uint64_t>(leaf.inputs.size()) * element;
  auto rows = static_cast<std::uint64_t>(leaf.outputs.size());
  const std::uint64_t begin = static_cast<std::uint64_t>(leaf.outputs.begin) * stride +
                              static_cast<std::uint64_t>(leaf.inputs.begin) * element;
  if (row_bytes == stride) row_bytes *= std::exchange(rows, 1);  // one piece
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (std::uint64_t at = 0; at < row_bytes;) {
      const auto count =
          static_cast<std::size_t>(std::min<std::uint64_t>(staging.size(), row_bytes - at));
      const std::span<std::byte> piece(staging.data(), count);
      TROUPE_TRY_VOID(options_.files->read(*leaf.tensor, begin + row * stride + at, piece));
      hash.update(piece);
      at += count;
      tick(count);
    }
  }
  return hash.finish();
}

void weight_digest::tick(std::uint64_t bytes) noexcept {
  if (options_.vitals == nullptr) return;
  constexpr std::uint64_t each = base::rank_vitals::load_tick_bytes;
  const std::uint64_t before = ticked_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (before / each != (before + bytes) / each) options_.vitals->tick();
}

// What was packed and hashed may be of two minds otherwise.
base::result<void> weight_digest::check_unchanged() const {
  TROUPE_TRY(now, options_.files->identities());
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (now[i] == files_[i]) continue;
    return base::fail(base::error_code::data_loss, "models",
                      fmt::format("{}: changed while it was loaded; start again when nobody writes "
                                  "to it any more",
                                  options_.files->files()[i].string()));
  }
  return {};
}

void weight_digest::keep(const std::string& tag) {
  if (!cache_ || !std::exchange(unkept_, false)) return;
  if (const auto written = cache_->write(tag, known_); !written) {
    cache_problem_ = written.error().message;
  }
}

std::uint64_t weight_digest::bytes_of_others() const {
  std::uint64_t bytes = 0;
  for (std::uint32_t leaf = 0; options_.whole && leaf < known_.size(); ++leaf) {
    if (!known_[leaf] && !std::ranges::binary_search(own_, leaf))
      bytes += tree_.leaves[leaf].bytes();
  }
  return bytes;
}

base::digest weight_digest::digest_of(const std::vector<std::uint32_t>& leaves) const {
  base::sha256 hash;
  hash.update("troupe weights 1\n");
  for (const std::uint32_t index : leaves) {
    const weight_leaf& leaf = tree_.leaves[index];
    TROUPE_CHECK(known_[index].has_value());  // finish() comes first
    // The length first, so that no two lists of names hash alike.
    hash.update(fmt::format("{}:{} {} ", leaf.tensor->name.size(), leaf.tensor->name, leaf.run));
    hash.update(std::as_bytes(std::span(*known_[index])));
  }
  return hash.finish();
}

base::result<base::digest> weight_digest::share(placement where) const {
  TROUPE_TRY(leaves, leaves_of(tree_, options_.config, where));
  return digest_of(leaves);
}

base::digest weight_digest::root() const {
  std::vector<std::uint32_t> all(tree_.leaves.size());
  std::iota(all.begin(), all.end(), 0U);
  return digest_of(all);
}

}  // namespace troupe::models
