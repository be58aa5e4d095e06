#include "base/check.hpp"

#include <cstdio>
#include <cstdlib>

namespace troupe::base {

void check_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "troupe: check failed: %s at %s:%d (a defect; please report it)\n",
               expression, file, line);
  std::abort();
}

}  // namespace troupe::base
