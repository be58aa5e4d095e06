#include "transport/threads.hpp"

#include "base/check.hpp"
#include "transport/thread_state.hpp"
#include "transport/tree_sum.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <utility>

namespace troupe::transport {
namespace {

// Bytes of the parts before `part`.
std::size_t offset_of(std::span<const std::size_t> counts, int part) {
  return std::accumulate(counts.begin(), counts.begin() + part, std::size_t{0});
}

class thread_collective final : public collective {
 public:
  thread_collective(std::shared_ptr<thread_state> shared, std::shared_ptr<const abort_scope> scope,
                    int rank)
      : shared_(std::move(shared)),
        scope_(std::move(scope)),
        place_{.rank = rank, .size = shared_->size()} {}
  ~thread_collective() override { shared_->leave(place_.rank); }

  int rank() const noexcept override { return place_.rank; }
  int size() const noexcept override { return place_.size; }

  base::result<void> all_reduce_sum(base::epoch_id epoch, std::span<float> values) override;
  base::result<void> reduce_scatter_sum(base::epoch_id epoch, std::span<const float> values,
                                        std::span<float> mine) override;
  base::result<void> all_gather(base::epoch_id epoch, std::span<const std::byte> mine,
                                std::span<std::byte> all) override;
  base::result<void> all_gather_v(base::epoch_id epoch, std::span<const std::byte> mine,
                                  std::span<const std::size_t> counts,
                                  std::span<std::byte> all) override;
  base::result<void> all_to_all_v(base::epoch_id epoch, std::span<const std::byte> send,
                                  std::span<const std::size_t> send_counts,
                                  std::span<std::byte> receive,
                                  std::span<const std::size_t> receive_counts) override;
  base::result<void> broadcast(base::epoch_id epoch, int root, std::span<std::byte> bytes) override;

  base::result<void> send(base::epoch_id epoch, int to, std::span<const std::byte> bytes) override {
    TROUPE_TRY_VOID(enter(epoch));
    TROUPE_TRY_VOID(check_peer(place_, to));
    return shared_->send(place_.rank, to, bytes);
  }

  base::result<void> receive(base::epoch_id epoch, int from, std::span<std::byte> bytes) override {
    TROUPE_TRY_VOID(enter(epoch));
    TROUPE_TRY_VOID(check_peer(place_, from));
    return shared_->receive(place_.rank, from, bytes);
  }

  base::result<void> barrier(base::epoch_id epoch) override {
    TROUPE_TRY_VOID(enter(epoch));
    announce(operation::barrier, 0, {});
    return gather_round({});
  }

  void abort() noexcept override { scope_->abort(); }

 private:
  base::result<void> enter(base::epoch_id epoch) const {
    TROUPE_TRY_VOID(check_epoch(shared_->epoch(), epoch));
    if (shared_->aborted()) return fail_aborted();
    return {};
  }

  call_slot& announce(operation kind, std::size_t bytes, std::span<const std::byte> source);
  call_slot& slot(int rank) { return shared_->slot(rank, call_); }

  // Tells the others, which wait for this rank, that its arguments are wrong: all fail alike.
  base::result<void> refuse(operation kind, base::result<void> reason) {
    announce(kind, 0, {}).fits = false;
    TROUPE_TRY_VOID(shared_->meet());
    return reason;
  }

  // Meets the others, checks that all announced the same, runs read(rank) for every rank's source,
  // and meets again when somebody's own memory was read.
  template <class Read>
  base::result<void> round(Read read);
  base::result<void> gather_round(std::span<std::byte> all);

  // Copies in chunks; stops early once aborted, which round() then finds.
  void copy_from(const std::byte* from, std::span<std::byte> to) const {
    for (std::size_t done = 0; done < to.size() && !shared_->aborted(); done += chunk_bytes) {
      const std::size_t count = std::min(chunk_bytes, to.size() - done);
      copy_bytes({from + done, count}, to.subspan(done, count));
    }
  }

  // The tree over [begin, begin + count) of every rank's floats, handed on in blocks that stay in
  // the first-level cache.
  template <class Write>
  void sum_blocks(std::size_t begin, std::size_t count, Write write);

  const std::shared_ptr<thread_state> shared_;
  const std::shared_ptr<const abort_scope> scope_;
  const group_place place_;
  std::uint64_t call_ = 0;  // collective operations announced; the same on all ranks
};

call_slot& thread_collective::announce(operation kind, std::size_t bytes,
                                       std::span<const std::byte> source) {
  ++call_;
  call_slot& mine = slot(place_.rank);
  mine.kind = kind;
  mine.fits = true;
  mine.root = 0;
  mine.bytes = bytes;
  mine.target = nullptr;
  mine.borrowed = source.size() > eager_bytes_max;
  mine.source = mine.borrowed ? source.data() : mine.eager.data();
  if (!mine.borrowed) copy_bytes(source, std::span(mine.eager).first(source.size()));
  return mine;
}

template <class Read>
base::result<void> thread_collective::round(Read read) {
  TROUPE_TRY_VOID(shared_->meet());
  TROUPE_TRY_VOID(shared_->check_agreement(call_));
  if (!shared_->any_borrowed(call_)) {
    read();
    return {};
  }
  TROUPE_TRY_VOID(shared_->begin_reading(place_.rank));
  read();
  shared_->end_reading(place_.rank);
  return shared_->meet();
}

template <class Write>
void thread_collective::sum_blocks(std::size_t begin, std::size_t count, Write write) {
  constexpr std::size_t block = 1024;  // floats
  std::array<float, block> sum;
  std::array<const float*, static_cast<std::size_t>(group_size_max)> sources;
  const auto ranks = static_cast<std::size_t>(place_.size);
  for (std::size_t done = 0; done < count && !shared_->aborted(); done += block) {
    const std::size_t now = std::min(block, count - done);
    for (std::size_t r = 0; r < ranks; ++r) {
      sources[r] = reinterpret_cast<const float*>(slot(static_cast<int>(r)).source) + begin + done;
    }
    tree_sum(std::span(sources).first(ranks), std::span(sum).first(now));
    write(done, std::span<const float>(sum).first(now));
  }
}

base::result<void> thread_collective::all_reduce_sum(base::epoch_id epoch,
                                                     std::span<float> values) {
  TROUPE_TRY_VOID(enter(epoch));
  TROUPE_TRY_VOID(check_sum_group(place_));  // the same refusal on every rank: nobody waits
  if (place_.size == 1) return {};
  call_slot& mine = announce(operation::all_reduce_sum, values.size_bytes(), std::as_bytes(values));
  mine.target = reinterpret_cast<std::byte*>(values.data());
  return round([&] {
    if (!mine.borrowed) {  // the slots hold all: each rank adds for itself
      sum_blocks(0, values.size(), [&](std::size_t at, std::span<const float> sum) {
        std::copy(sum.begin(), sum.end(), values.begin() + static_cast<std::ptrdiff_t>(at));
      });
      return;
    }
    // Each rank adds one slice, whole cache lines, and writes it to every rank.
    const auto cut = [&](int rank) {
      const std::size_t lines = (values.size() + 15) / 16;
      const auto part = static_cast<std::size_t>(rank);
      return std::min(values.size(), lines * part / static_cast<std::size_t>(place_.size) * 16);
    };
    const std::size_t begin = cut(place_.rank);
    sum_blocks(begin, cut(place_.rank + 1) - begin,
               [&](std::size_t at, std::span<const float> sum) {
                 for (int rank = 0; rank < place_.size; ++rank) {
                   std::byte* target = slot(rank).target + (begin + at) * sizeof(float);
                   std::memcpy(target, sum.data(), sum.size_bytes());
                 }
               });
  });
}

base::result<void> thread_collective::reduce_scatter_sum(base::epoch_id epoch,
                                                         std::span<const float> values,
                                                         std::span<float> mine) {
  constexpr auto kind = operation::reduce_scatter_sum;
  TROUPE_TRY_VOID(enter(epoch));
  TROUPE_TRY_VOID(check_sum_group(place_));
  if (auto fits = check_reduce_scatter(place_, values, mine); !fits) return refuse(kind, fits);
  announce(kind, values.size_bytes(), std::as_bytes(values));
  return round([&] {
    const std::size_t begin = static_cast<std::size_t>(place_.rank) * mine.size();
    sum_blocks(begin, mine.size(), [&](std::size_t at, std::span<const float> sum) {
      std::copy(sum.begin(), sum.end(), mine.begin() + static_cast<std::ptrdiff_t>(at));
    });
  });
}

// The end of all_gather and all_gather_v (and of barrier, with nothing to gather).
base::result<void> thread_collective::gather_round(std::span<std::byte> all) {
  return round([&] {
    std::size_t begin = 0;
    for (int rank = 0; rank < place_.size; ++rank) {
      const call_slot& other = slot(rank);
      const bool counted = other.kind == operation::all_gather_v;
      const std::size_t count =
          counted ? other.send_counts[static_cast<std::size_t>(rank)] : other.bytes;
      copy_from(other.source, all.subspan(begin, count));
      begin += count;
    }
  });
}

base::result<void> thread_collective::all_gather(base::epoch_id epoch,
                                                 std::span<const std::byte> mine,
                                                 std::span<std::byte> all) {
  TROUPE_TRY_VOID(enter(epoch));
  auto fits = check_all_gather(place_, mine, all);
  if (!fits) return refuse(operation::all_gather, fits);
  announce(operation::all_gather, mine.size(), mine);
  return gather_round(all);
}

base::result<void> thread_collective::all_gather_v(base::epoch_id epoch,
                                                   std::span<const std::byte> mine,
                                                   std::span<const std::size_t> counts,
                                                   std::span<std::byte> all) {
  TROUPE_TRY_VOID(enter(epoch));
  auto fits = check_all_gather_v(place_, mine, counts, all);
  if (!fits) return refuse(operation::all_gather_v, fits);
  announce(operation::all_gather_v, all.size(), mine)
      .send_counts.assign(counts.begin(), counts.end());
  return gather_round(all);
}

base::result<void> thread_collective::all_to_all_v(base::epoch_id epoch,
                                                   std::span<const std::byte> send,
                                                   std::span<const std::size_t> send_counts,
                                                   std::span<std::byte> receive,
                                                   std::span<const std::size_t> receive_counts) {
  constexpr auto kind = operation::all_to_all_v;
  TROUPE_TRY_VOID(enter(epoch));
  auto fits = check_all_to_all_v(place_, send, send_counts, receive, receive_counts);
  if (!fits) return refuse(kind, fits);
  call_slot& mine = announce(kind, 0, send);
  mine.send_counts.assign(send_counts.begin(), send_counts.end());
  mine.receive_counts.assign(receive_counts.begin(), receive_counts.end());
  return round([&] {
    std::size_t begin = 0;
    for (int rank = 0; rank < place_.size; ++rank) {
      const call_slot& other = slot(rank);
      const std::size_t count = receive_counts[static_cast<std::size_t>(rank)];
      copy_from(other.source + offset_of(other.send_counts, place_.rank),
                receive.subspan(begin, count));
      begin += count;
    }
  });
}

base::result<void> thread_collective::broadcast(base::epoch_id epoch, int root,
                                                std::span<std::byte> bytes) {
  TROUPE_TRY_VOID(enter(epoch));
  if (auto fits = check_root(place_, root); !fits) return refuse(operation::broadcast, fits);
  const bool gives = root == place_.rank;
  announce(operation::broadcast, bytes.size(), gives ? bytes : std::span<std::byte>{}).root = root;
  return round([&] {
    if (!gives) copy_from(slot(root).source, bytes);
  });
}

}  // namespace

std::vector<std::vector<std::unique_ptr<collective>>> make_thread_groups(std::span<const int> sizes,
                                                                         base::epoch_id epoch) {
  std::vector<std::shared_ptr<thread_state>> states;
  auto scope = std::make_shared<abort_scope>();
  for (const int size : sizes) {
    TROUPE_CHECK(size >= 1 && size <= group_size_max);
    states.push_back(std::make_shared<thread_state>(size, epoch));
    scope->groups.push_back(states.back());
  }
  std::vector<std::vector<std::unique_ptr<collective>>> groups(sizes.size());
  for (std::size_t g = 0; g < states.size(); ++g) {
    for (int rank = 0; rank < states[g]->size(); ++rank) {
      groups[g].push_back(std::make_unique<thread_collective>(states[g], scope, rank));
    }
  }
  return groups;
}

std::vector<std::unique_ptr<collective>> make_thread_group(int size, base::epoch_id epoch) {
  const std::array<int, 1> sizes = {size};
  return std::move(make_thread_groups(sizes, epoch).front());
}

}  // namespace troupe::transport
