#include "engine/direct_collective.hpp"

#include <atomic>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "transport/sum_rounds.hpp"

namespace troupe::engine {
namespace {

using bytes_view = std::span<const std::byte>;
using bytes_span = std::span<std::byte>;

// offsets[r] .. offsets[r + 1]: the bytes of rank r.
std::vector<std::size_t> offsets_of(std::span<const std::size_t> counts) {
  std::vector<std::size_t> offsets(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
  return offsets;
}

std::span<float> part(std::span<float> values, const transport::float_range& range) {
  return values.subspan(range.first, range.count);
}

class direct_collective final : public transport::collective {
 public:
  direct_collective(std::unique_ptr<kernels::device_group> group, const direct_options& options)
      : options_(options),
        place_{.rank = group->rank(), .size = group->size()},
        group_(std::move(group)) {}

  [[nodiscard]] int rank() const noexcept override { return place_.rank; }
  [[nodiscard]] int size() const noexcept override { return place_.size; }

  base::result<void> all_reduce_sum(base::epoch_id epoch, std::span<float> values) override;
  base::result<void> reduce_scatter_sum(base::epoch_id epoch, std::span<const float> values,
                                        std::span<float> mine) override;
  base::result<void> all_gather(base::epoch_id epoch, bytes_view mine, bytes_span all) override;
  base::result<void> all_gather_v(base::epoch_id epoch, bytes_view mine,
                                  std::span<const std::size_t> counts, bytes_span all) override;
  base::result<void> all_to_all_v(base::epoch_id epoch, bytes_view send,
                                  std::span<const std::size_t> send_counts, bytes_span receive,
                                  std::span<const std::size_t> receive_counts) override;
  base::result<void> broadcast(base::epoch_id epoch, int root, bytes_span bytes) override;
  base::result<void> send(base::epoch_id epoch, int to, bytes_view bytes) override;
  base::result<void> receive(base::epoch_id epoch, int from, bytes_span bytes) override;
  base::result<void> barrier(base::epoch_id epoch) override;

  void abort() noexcept override {
    aborted_.store(true, std::memory_order_release);
    group_->abort();
    options_.host.abort();
  }

 private:
  [[nodiscard]] base::result<void> enter(base::epoch_id epoch) const {
    TROUPE_TRY_VOID(transport::check_epoch(options_.epoch, epoch));
    if (aborted_.load(std::memory_order_acquire)) return transport::fail_aborted();
    return {};
  }
  base::result<void> settle(base::result<void> outcome) {
    if (!outcome) abort();
    return outcome;
  }
  // Device memory for `count` floats. It grows when nothing that was enqueued uses it any more.
  [[nodiscard]] base::result<std::span<float>> room(kernels::buffer& memory, std::size_t count);
  [[nodiscard]] base::result<void> sum(std::span<float> values,
                                       const std::vector<transport::sum_round>& rounds);
  [[nodiscard]] base::result<void> scatter(std::span<const float> values, std::span<float> mine);
  [[nodiscard]] base::result<void> gather_parts(bytes_view mine,
                                                std::span<const std::size_t> counts,
                                                bytes_span all);
  [[nodiscard]] base::result<void> all_to_all_parts(bytes_view send,
                                                    std::span<const std::size_t> send_counts,
                                                    bytes_span receive,
                                                    std::span<const std::size_t> receive_counts);

  const direct_options options_;
  const transport::group_place place_;
  std::atomic<bool> aborted_{false};
  kernels::buffer received_;  // grows to the largest exchange of a sum
  kernels::buffer work_;
  const std::unique_ptr<kernels::device_group> group_;  // goes first: it ends what uses the memory
};

base::result<std::span<float>> direct_collective::room(kernels::buffer& memory, std::size_t count) {
  if (memory.size() < count * sizeof(float)) {
    TROUPE_TRY_VOID(group_->wait());
    memory = {};
    TROUPE_TRY(grown,
               kernels::allocate_on(options_.on, count * sizeof(float), "sums over the ranks"));
    memory = std::move(grown);
  }
  return std::span(reinterpret_cast<float*>(memory.data()), count);
}

base::result<void> direct_collective::sum(std::span<float> values,
                                          const std::vector<transport::sum_round>& rounds) {
  for (const transport::sum_round& round : rounds) {
    const std::span<float> taken = part(values, round.taken);
    std::span<float> theirs = taken;
    if (round.adds) {
      TROUPE_TRY(received, room(received_, taken.size()));
      theirs = received;
    }
    const kernels::device_outgoing out{.to = round.partner,
                                       .bytes = std::as_bytes(part(values, round.given))};
    const kernels::device_incoming in{.from = round.partner,
                                      .bytes = std::as_writable_bytes(theirs)};
    TROUPE_TRY_VOID(group_->exchange({&out, 1}, {&in, 1}));
    if (round.adds) TROUPE_TRY_VOID(group_->add(taken, theirs));
  }
  return {};
}

base::result<void> direct_collective::all_reduce_sum(base::epoch_id epoch,
                                                     std::span<float> values) {
  TROUPE_TRY_VOID(enter(epoch));
  TROUPE_TRY_VOID(transport::check_sum_group(place_));
  const bool halves = values.size_bytes() >= options_.halving_bytes_min;
  return settle(sum(values, transport::all_reduce_rounds(place_, values.size(), halves)));
}

base::result<void> direct_collective::reduce_scatter_sum(base::epoch_id epoch,
                                                         std::span<const float> values,
                                                         std::span<float> mine) {
  TROUPE_TRY_VOID(enter(epoch));
  TROUPE_TRY_VOID(transport::check_sum_group(place_));
  if (auto fits = transport::check_reduce_scatter(place_, values, mine); !fits) return settle(fits);
  return settle(scatter(values, mine));
}

// Laid out in the order of the pieces, the piece that a rank ends with is its own part.
base::result<void> direct_collective::scatter(std::span<const float> values,
                                              std::span<float> mine) {
  TROUPE_TRY(work, room(work_, values.size()));
  for (int of = 0; of < place_.size; ++of) {
    const std::size_t from = static_cast<std::size_t>(of) * mine.size();
    const int piece = transport::piece_number({.rank = of, .size = place_.size});
    const std::size_t to = static_cast<std::size_t>(piece) * mine.size();
    TROUPE_TRY_VOID(group_->copy(std::as_bytes(values.subspan(from, mine.size())),
                                 std::as_writable_bytes(work.subspan(to, mine.size()))));
  }
  TROUPE_TRY_VOID(sum(work, transport::halving_rounds(place_, work.size())));
  return group_->copy(std::as_bytes(part(work, transport::piece_of(place_, work.size()))),
                      std::as_writable_bytes(mine));
}

base::result<void> direct_collective::all_gather(base::epoch_id epoch, bytes_view mine,
                                                 bytes_span all) {
  TROUPE_TRY_VOID(enter(epoch));
  if (auto fits = transport::check_all_gather(place_, mine, all); !fits) return settle(fits);
  return settle(group_->all_gather(mine, all));
}

base::result<void> direct_collective::all_gather_v(base::epoch_id epoch, bytes_view mine,
                                                   std::span<const std::size_t> counts,
                                                   bytes_span all) {
  TROUPE_TRY_VOID(enter(epoch));
  auto fits = transport::check_all_gather_v(place_, mine, counts, all);
  if (!fits) return settle(fits);
  return settle(gather_parts(mine, counts, all));
}

// Every rank to every other at once.
base::result<void> direct_collective::gather_parts(bytes_view mine,
                                                   std::span<const std::size_t> counts,
                                                   bytes_span all) {
  const std::vector<std::size_t> offsets = offsets_of(counts);
  std::vector<kernels::device_outgoing> out;
  std::vector<kernels::device_incoming> in;
  for (int peer = 0; peer < place_.size; ++peer) {
    const auto p = static_cast<std::size_t>(peer);
    const bytes_span place = all.subspan(offsets[p], counts[p]);
    if (peer == place_.rank) {
      TROUPE_TRY_VOID(group_->copy(mine, place));
      continue;
    }
    out.push_back({.to = peer, .bytes = mine});
    in.push_back({.from = peer, .bytes = place});
  }
  return group_->exchange(out, in);
}

base::result<void> direct_collective::all_to_all_v(base::epoch_id epoch, bytes_view send,
                                                   std::span<const std::size_t> send_counts,
                                                   bytes_span receive,
                                                   std::span<const std::size_t> receive_counts) {
  TROUPE_TRY_VOID(enter(epoch));
  auto fits = transport::check_all_to_all_v(place_, send, send_counts, receive, receive_counts);
  if (!fits) return settle(fits);
  return settle(all_to_all_parts(send, send_counts, receive, receive_counts));
}

base::result<void> direct_collective::all_to_all_parts(
    bytes_view send, std::span<const std::size_t> send_counts, bytes_span receive,
    std::span<const std::size_t> receive_counts) {
  const std::vector<std::size_t> from = offsets_of(send_counts);
  const std::vector<std::size_t> to = offsets_of(receive_counts);
  std::vector<kernels::device_outgoing> out;
  std::vector<kernels::device_incoming> in;
  for (int peer = 0; peer < place_.size; ++peer) {
    const auto p = static_cast<std::size_t>(peer);
    const bytes_view given = send.subspan(from[p], send_counts[p]);
    const bytes_span taken = receive.subspan(to[p], receive_counts[p]);
    if (peer == place_.rank) {
      TROUPE_TRY_VOID(group_->copy(given, taken));
      continue;
    }
    out.push_back({.to = peer, .bytes = given});
    in.push_back({.from = peer, .bytes = taken});
  }
  return group_->exchange(out, in);
}

base::result<void> direct_collective::broadcast(base::epoch_id epoch, int root, bytes_span bytes) {
  TROUPE_TRY_VOID(enter(epoch));
  if (auto fits = transport::check_root(place_, root); !fits) return settle(fits);
  return settle(group_->broadcast(root, bytes));
}

base::result<void> direct_collective::send(base::epoch_id epoch, int to, bytes_view bytes) {
  TROUPE_TRY_VOID(enter(epoch));
  if (auto fits = transport::check_peer(place_, to); !fits) return settle(fits);
  const kernels::device_outgoing out{.to = to, .bytes = bytes};
  return settle(group_->exchange({&out, 1}, {}));
}

base::result<void> direct_collective::receive(base::epoch_id epoch, int from, bytes_span bytes) {
  TROUPE_TRY_VOID(enter(epoch));
  if (auto fits = transport::check_peer(place_, from); !fits) return settle(fits);
  const kernels::device_incoming in{.from = from, .bytes = bytes};
  return settle(group_->exchange({}, {&in, 1}));
}

// Of what the ranks' hosts did and their devices were given.
base::result<void> direct_collective::barrier(base::epoch_id epoch) {
  TROUPE_TRY_VOID(enter(epoch));
  TROUPE_TRY_VOID(settle(group_->wait()));
  return settle(options_.host.barrier(epoch));
}

}  // namespace

std::unique_ptr<transport::collective> direct(std::unique_ptr<kernels::device_group> group,
                                              const direct_options& options) {
  return std::make_unique<direct_collective>(std::move(group), options);
}

}  // namespace troupe::engine
