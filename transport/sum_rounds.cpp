#include "transport/sum_rounds.hpp"

#include "base/check.hpp"

namespace troupe::transport {
namespace {

// Halving counts its rounds from here, so that ranks which disagree about the size, and with it
// about the algorithm, never take each other's messages for their own.
constexpr int halving_round = 32;

int rounds_of(group_place place) {
  TROUPE_CHECK(is_power_of_two(place.size) && place.rank >= 0 && place.rank < place.size);
  int rounds = 0;
  while ((1 << rounds) < place.size) ++rounds;
  return rounds;
}

float_range first_half(float_range whole) { return {whole.first, whole.count / 2}; }
float_range second_half(float_range whole) {
  return {whole.first + whole.count / 2, whole.count - whole.count / 2};
}

// The rank's half of `whole` in round s, and its partner's.
float_range kept(int rank, int s, float_range whole) {
  return (rank & (1 << s)) == 0 ? first_half(whole) : second_half(whole);
}
float_range given(int rank, int s, float_range whole) {
  return (rank & (1 << s)) == 0 ? second_half(whole) : first_half(whole);
}

// What the rank holds of `count` floats after `rounds` halvings.
float_range piece_after(int rank, int rounds, std::size_t count) {
  float_range piece{0, count};
  for (int s = 0; s < rounds; ++s) piece = kept(rank, s, piece);
  return piece;
}

}  // namespace

std::vector<sum_round> doubling_rounds(group_place place, std::size_t count) {
  std::vector<sum_round> all;
  for (int s = 0; s < rounds_of(place); ++s) {
    all.push_back({.number = s,
                   .partner = place.rank ^ (1 << s),
                   .given = {0, count},
                   .taken = {0, count},
                   .adds = true});
  }
  return all;
}

std::vector<sum_round> halving_rounds(group_place place, std::size_t count) {
  std::vector<sum_round> all;
  for (int s = 0; s < rounds_of(place); ++s) {
    const float_range whole = piece_after(place.rank, s, count);
    all.push_back({.number = halving_round + s,
                   .partner = place.rank ^ (1 << s),
                   .given = given(place.rank, s, whole),
                   .taken = kept(place.rank, s, whole),
                   .adds = true});
  }
  return all;
}

float_range piece_of(group_place place, std::size_t count) {
  return piece_after(place.rank, rounds_of(place), count);
}

int piece_number(group_place place) noexcept {
  int number = 0;
  for (int bit = 1; bit < place.size; bit *= 2) number = 2 * number + ((place.rank & bit) != 0);
  return number;
}

std::vector<sum_round> all_reduce_rounds(group_place place, std::size_t count, bool halves) {
  if (!halves) return doubling_rounds(place, count);
  std::vector<sum_round> all = halving_rounds(place, count);
  // Back the same way: at round s the partner holds the other half of what was one piece.
  const int rounds = rounds_of(place);
  for (int s = rounds - 1; s >= 0; --s) {
    const float_range whole = piece_after(place.rank, s, count);
    all.push_back({.number = halving_round + 2 * rounds - 1 - s,
                   .partner = place.rank ^ (1 << s),
                   .given = kept(place.rank, s, whole),
                   .taken = given(place.rank, s, whole),
                   .adds = false});
  }
  return all;
}

}  // namespace troupe::transport
