#include "transport/simulated.hpp"

#include "base/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace troupe::transport {
namespace {

struct message {
  message_tag tag;
  std::vector<std::byte> bytes;
  std::uint64_t due_tick = 0;
};

struct link {
  std::deque<message> queue;  // at most link_messages_max + 1
};

// What a rank waits for, told to the scheduler.
struct wish {
  enum class kind : std::uint8_t { nothing, arrival, room } what = kind::nothing;
  int peer = 0;
};

struct seat {
  wish waits_for;
  bool ended = false;
  bool lost = false;
  std::uint64_t operations = 0;
  std::condition_variable turn;
};

}  // namespace

// One mutex guards all; the rank named by running_ is the only one to go on.
class simulated_network::state {
 public:
  explicit state(simulation_options options)
      : options_(options),
        size_(static_cast<std::size_t>(options.size)),
        random_(options.seed),
        links_(size_ * size_),
        seats_(size_) {}

  const simulation_options& options() const { return options_; }

  base::result<void> send(int self, message_tag tag, outgoing out) {
    std::unique_lock lock(mutex_);
    TROUPE_TRY_VOID(begin(self, lock));
    TROUPE_TRY_VOID(check_peer(self, out.to));
    TROUPE_TRY_VOID(post(self, tag, out));
    return drain(self, out.to, lock);
  }

  base::result<void> receive(int self, message_tag tag, incoming in) {
    std::unique_lock lock(mutex_);
    TROUPE_TRY_VOID(begin(self, lock));
    TROUPE_TRY_VOID(check_peer(self, in.from));
    return take(self, tag, in, lock);
  }

  base::result<void> exchange(int self, message_tag tag, outgoing out, incoming in) {
    std::unique_lock lock(mutex_);
    TROUPE_TRY_VOID(begin(self, lock));
    TROUPE_TRY_VOID(check_peer(self, out.to));
    TROUPE_TRY_VOID(check_peer(self, in.from));
    TROUPE_TRY_VOID(post(self, tag, out));
    TROUPE_TRY_VOID(take(self, tag, in, lock));
    return drain(self, out.to, lock);
  }

  // From any thread; a lost rank reaches nobody.
  void abort_from(int self) {
    const std::lock_guard lock(mutex_);
    if (self < 0 || !seat_of(self).lost) aborted_ = true;
  }

  // The rank's thread begins: it waits for its first turn.
  void join(int self) {
    std::unique_lock lock(mutex_);
    seat_of(self).turn.wait(lock, [&] { return running_ == self; });
  }

  void leave(int self) {
    const std::lock_guard lock(mutex_);
    seat_of(self).ended = true;
    pass_turn();
  }

  void start() {
    const std::lock_guard lock(mutex_);
    pass_turn();
  }

  std::uint64_t digest() const {
    const std::lock_guard lock(mutex_);
    return digest_;
  }

  bool deadlocked() const {
    const std::lock_guard lock(mutex_);
    return deadlocked_;
  }

 private:
  seat& seat_of(int rank) { return seats_[static_cast<std::size_t>(rank)]; }
  link& link_of(int from, int to) {
    return links_[static_cast<std::size_t>(from) * size_ + static_cast<std::size_t>(to)];
  }
  bool gone(int rank) { return seat_of(rank).lost || seat_of(rank).ended; }

  base::result<void> check_peer(int self, int peer) const {
    return transport::check_peer({.rank = self, .size = options_.size}, peer);
  }

  // Why this rank cannot go on, if so.
  base::result<void> health(int self) {
    if (seat_of(self).lost) return fail_unavailable(self);
    if (aborted_) return fail_aborted();
    if (deadlocked_) {
      return base::fail(base::error_code::internal, "transport",
                        "deadlock: every rank of the simulation waits for another");
    }
    return {};
  }

  static tl::unexpected<base::error> fail_unavailable(int rank) {
    return base::fail(base::error_code::unavailable, "transport",
                      fmt::format("rank {} of the simulation is gone", rank), true);
  }

  // Counts the operation, lets the planned fault strike, and gives others a turn.
  base::result<void> begin(int self, std::unique_lock<std::mutex>& lock) {
    seat& here = seat_of(self);
    const std::uint64_t number = here.operations++;
    ++tick_;
    if (self == options_.lost_rank && number >= options_.lost_at) here.lost = true;
    if (self == options_.aborting_rank && number >= options_.aborting_at) aborted_ = true;
    return wait(self, {}, lock);
  }

  base::result<void> post(int self, message_tag tag, outgoing out) {
    if (gone(out.to)) return fail_unavailable(out.to);
    std::deque<message>& queue = link_of(self, out.to).queue;
    const std::uint64_t delay =
        std::uniform_int_distribution<std::uint64_t>(0, options_.delay_ticks_max)(random_);
    const std::uint64_t after = queue.empty() ? 0 : queue.back().due_tick;
    queue.push_back({.tag = tag,
                     .bytes = std::vector<std::byte>(out.bytes.begin(), out.bytes.end()),
                     .due_tick = std::max(after, tick_ + delay)});
    return {};
  }

  base::result<void> take(int self, message_tag tag, incoming in,
                          std::unique_lock<std::mutex>& lock) {
    TROUPE_TRY_VOID(wait(self, {.what = wish::kind::arrival, .peer = in.from}, lock));
    std::deque<message>& queue = link_of(in.from, self).queue;
    if (queue.empty()) return fail_unavailable(in.from);
    const message head = std::move(queue.front());
    queue.pop_front();
    if (head.tag != tag || head.bytes.size() != in.bytes.size()) {
      return base::fail(
          base::error_code::invalid_argument, "transport",
          fmt::format("ranks out of step: rank {} sent {} bytes of {} number {} round {}, rank {} "
                      "expects {} bytes of {} number {} round {}",
                      in.from, head.bytes.size(), to_string(head.tag.kind), head.tag.number,
                      head.tag.round, self, in.bytes.size(), to_string(tag.kind), tag.number,
                      tag.round));
    }
    copy_bytes(head.bytes, in.bytes);
    return {};
  }

  base::result<void> drain(int self, int to, std::unique_lock<std::mutex>& lock) {
    TROUPE_TRY_VOID(wait(self, {.what = wish::kind::room, .peer = to}, lock));
    if (link_of(self, to).queue.size() > options_.link_messages_max) return fail_unavailable(to);
    return {};
  }

  // Gives the turn away and comes back when the wish is true and the schedule says so.
  base::result<void> wait(int self, wish what, std::unique_lock<std::mutex>& lock) {
    seat_of(self).waits_for = what;
    pass_turn();
    seat_of(self).turn.wait(lock, [&] { return running_ == self; });
    seat_of(self).waits_for = {};
    return health(self);
  }

  bool can_go_on(int rank) {
    seat& here = seat_of(rank);
    if (here.ended) return false;
    if (here.lost || aborted_ || deadlocked_) return true;
    const int peer = here.waits_for.peer;
    switch (here.waits_for.what) {
      case wish::kind::nothing:
        return true;
      case wish::kind::arrival: {
        const std::deque<message>& queue = link_of(peer, rank).queue;
        return queue.empty() ? gone(peer) : queue.front().due_tick <= tick_;
      }
      case wish::kind::room:
        return link_of(rank, peer).queue.size() <= options_.link_messages_max || gone(peer);
    }
    return true;
  }

  // The earliest moment at which a message that somebody waits for is due.
  std::optional<std::uint64_t> next_due() {
    std::optional<std::uint64_t> earliest;
    for (int rank = 0; rank < options_.size; ++rank) {
      const wish& what = seat_of(rank).waits_for;
      if (seat_of(rank).ended || what.what != wish::kind::arrival) continue;
      const std::deque<message>& queue = link_of(what.peer, rank).queue;
      if (queue.empty()) continue;
      earliest = std::min(earliest.value_or(queue.front().due_tick), queue.front().due_tick);
    }
    return earliest;
  }

  void pass_turn() {
    running_ = -1;
    for (;;) {
      std::vector<int> ready;
      bool all_ended = true;
      for (int rank = 0; rank < options_.size; ++rank) {
        all_ended = all_ended && seat_of(rank).ended;
        if (can_go_on(rank)) ready.push_back(rank);
      }
      if (all_ended) return;
      if (!ready.empty()) {
        const std::size_t last = ready.size() - 1;
        running_ = ready[std::uniform_int_distribution<std::size_t>(0, last)(random_)];
        digest_ = (digest_ ^ static_cast<std::uint64_t>(running_ + 1)) * 0x100000001b3ULL;  // FNV
        seat_of(running_).turn.notify_one();
        return;
      }
      if (const auto due = next_due()) {
        tick_ = *due;
      } else {
        deadlocked_ = true;
      }
    }
  }

  const simulation_options options_;
  const std::size_t size_;
  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  std::vector<link> links_;
  std::vector<seat> seats_;
  std::uint64_t tick_ = 0;
  std::uint64_t digest_ = 0xcbf29ce484222325ULL;
  int running_ = -1;
  bool aborted_ = false;
  bool deadlocked_ = false;
};

namespace {

class simulated_peers final : public point_to_point {
 public:
  simulated_peers(std::shared_ptr<simulated_network::state> shared, int rank)
      : shared_(std::move(shared)), rank_(rank) {}

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return shared_->options().size; }
  base::result<void> send(message_tag tag, outgoing out) override {
    return shared_->send(rank_, tag, out);
  }
  base::result<void> receive(message_tag tag, incoming in) override {
    return shared_->receive(rank_, tag, in);
  }
  base::result<void> exchange(message_tag tag, outgoing out, incoming in) override {
    return shared_->exchange(rank_, tag, out, in);
  }
  void abort() noexcept override { shared_->abort_from(rank_); }

 private:
  const std::shared_ptr<simulated_network::state> shared_;
  const int rank_;
};

}  // namespace

simulated_network::simulated_network(simulation_options options)
    : state_(std::make_shared<state>(options)) {
  TROUPE_CHECK(options.size >= 1 && options.size <= group_size_max);
}

simulated_network::~simulated_network() = default;

void simulated_network::run(const std::function<void(std::unique_ptr<point_to_point>)>& body) {
  std::vector<std::jthread> ranks;
  for (int rank = 0; rank < state_->options().size; ++rank) {
    ranks.emplace_back([this, rank, &body] {
      state_->join(rank);
      body(std::make_unique<simulated_peers>(state_, rank));
      state_->leave(rank);
    });
  }
  state_->start();
}

void simulated_network::abort() noexcept { state_->abort_from(-1); }

std::uint64_t simulated_network::schedule_digest() const { return state_->digest(); }

bool simulated_network::deadlocked() const { return state_->deadlocked(); }

}  // namespace troupe::transport
