#include "actors/rank/share_book.hpp"

#include <fmt/format.h>

#include <utility>

#include "actors/gang/join_check.hpp"

namespace troupe::actors {
namespace {

// Enough to tell two copies apart by eye.
std::string shortened(const base::digest& digest) { return base::to_hex(digest).substr(0, 16); }

}  // namespace

void share_book::fill(std::vector<base::digest> shares, const base::digest& root) {
  const std::scoped_lock lock(mutex_);
  shares_ = std::move(shares);
  root_ = base::to_hex(root);
}

std::optional<std::string> share_book::why_refused(const schemas::join_request& rank,
                                                   const schemas::loaded& share) const {
  const std::scoped_lock lock(mutex_);
  const auto index = static_cast<std::size_t>(rank.rank.value);
  if (index >= shares_.size()) {
    return name_of(rank) + " has weights that the leader has no digest of";
  }
  if (share.share_digest == shares_[index]) return std::nullopt;
  return fmt::format(
      "{} has other weights than the leader: share digest {}, expected {}; compare the files of "
      "both machines",
      name_of(rank), shortened(share.share_digest), shortened(shares_[index]));
}

std::string share_book::root() const {
  const std::scoped_lock lock(mutex_);
  return root_;
}

}  // namespace troupe::actors
