// What the leader's own copy of the weights says of every rank's share.
//
// Filled by rank 0's loading thread before rank 0 says that it has loaded; read by the gang's
// thread, and by whoever reports the model's digest.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/sha256.hpp"
#include "schemas/control_message.hpp"

namespace troupe::actors {

class share_book {
 public:
  // `shares`: one a rank.
  void fill(std::vector<base::digest> shares, const base::digest& root);

  // A share_check (gang_machine.hpp).
  [[nodiscard]] std::optional<std::string> why_refused(const schemas::join_request& rank,
                                                       const schemas::loaded& share) const;
  // The model's digest in hexadecimal; empty until it is known.
  [[nodiscard]] std::string root() const;

 private:
  mutable std::mutex mutex_;
  std::vector<base::digest> shares_;
  std::string root_;
};

}  // namespace troupe::actors
