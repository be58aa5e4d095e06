// How this process came to be: typed by a person, or started by a supervisor as one rank of a gang
// (`troupe rank --node-rank R ... -- serve MODEL ...`, which is not for people).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace troupe::cli {

// What the supervisor tells a rank beside the user's own command line. What only the first process
// can know travels here, so that all ranks agree.
struct rank_seat {
  int rank = 0;
  std::int64_t positions = 0;  // of the longest sequence of a one-shot command
  std::int64_t sequences = 0;
  std::string gang_host;    // this node's address on the gang's network
  std::string prompt_file;  // replaces --prompt-file where that can be read only once
  std::int32_t parent = 0;  // the supervisor's process id
};

struct invocation {
  std::vector<std::string> words;  // the user's command line, without the program's name
  std::optional<rank_seat> seat;   // none: this is the user's own process

  [[nodiscard]] std::optional<int> rank() const noexcept {
    return seat ? std::optional(seat->rank) : std::nullopt;
  }
};

// Errors: invalid_argument (a seat that no supervisor of this version writes).
[[nodiscard]] base::result<invocation> parse_invocation(int argc, const char* const* argv);

// The command line of a rank, its program's name first.
[[nodiscard]] std::vector<std::string> rank_arguments(const rank_seat& seat,
                                                      const std::vector<std::string>& words);

}  // namespace troupe::cli
