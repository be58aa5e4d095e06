// Which rank exchanges which floats with which partner, round by round, so that a sum over ranks is
// the tree of tree_sum.hpp: neighbour first. One schedule for messages and for devices.
//
//   for (const sum_round& round : all_reduce_rounds(place, values.size(), halves)) {
//     // send values[given], receive into room for values[taken]; add it there or put it there
//   }
#pragma once

#include <cstddef>
#include <vector>

#include "transport/arguments.hpp"

namespace troupe::transport {

struct float_range {
  std::size_t first = 0;
  std::size_t count = 0;
  friend bool operator==(const float_range&, const float_range&) = default;
};

// Both partners give and take; a round begins when the one before is done.
struct sum_round {
  int number = 0;  // unique within an operation, whatever the algorithm
  int partner = 0;
  float_range given;
  float_range taken;
  bool adds = true;  // what comes is added to `taken`; else it takes its place
};

// Each of these: Shape: place.size is a power of two up to 64; `count` is the same on all ranks.

// All floats in each round: log2(size) rounds of `count`. Round s: the partner in the neighbouring
// block of 2^s ranks; both end with the sum of 2^(s+1).
[[nodiscard]] std::vector<sum_round> doubling_rounds(group_place place, std::size_t count);

// The reduce-scatter phase: round s halves the current piece; the rank whose bit s is 0 keeps the
// first half. Partners differ in bit s only, so they hold the same piece, and it is summed over
// blocks of 2^s neighbours: the tree. This rank's part of the sum ends in piece_of().
// Source: Thakur, Rabenseifner, Gropp 2005, "Optimization of Collective Communication Operations in
// MPICH", section 4.4, with the partners in the opposite order.
[[nodiscard]] std::vector<sum_round> halving_rounds(group_place place, std::size_t count);
// Where it ends: the piece numbered by the rank's bits in reverse.
[[nodiscard]] float_range piece_of(group_place place, std::size_t count);
[[nodiscard]] int piece_number(group_place place) noexcept;

// Every rank ends with the whole sum: by doubling, or by halving and then back the same way.
[[nodiscard]] std::vector<sum_round> all_reduce_rounds(group_place place, std::size_t count,
                                                       bool halves);

}  // namespace troupe::transport
