#include "base/entropy.hpp"

#include <sys/random.h>

namespace troupe::base {

result<std::uint64_t> draw_seed() {
  std::uint64_t seed = 0;
  if (getrandom(&seed, sizeof(seed), 0) != static_cast<ssize_t>(sizeof(seed))) {
    return fail(error_code::unavailable, "base", "the system gives no random bytes; set a seed");
  }
  return seed;
}

}  // namespace troupe::base
