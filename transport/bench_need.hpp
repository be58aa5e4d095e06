// What a benchmark cannot do without: a failure is said and ends it.
#pragma once

#include <errno.h>

#include <cstdio>
#include <cstdlib>
#include <type_traits>
#include <utility>

#include "base/error.hpp"

namespace troupe::transport {

template <class T>
T need(base::result<T> outcome) {
  if (!outcome) {
    std::fprintf(stderr, "%s: %s\n", program_invocation_short_name,
                 outcome.error().message.c_str());
    std::_Exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*outcome);
}

}  // namespace troupe::transport
