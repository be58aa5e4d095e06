// The process of one rank: what a supervisor started, built from the same flags as the user's.
#pragma once

#include <functional>
#include <memory>

#include "actors/rank/gang_process.hpp"
#include "base/log.hpp"
#include "base/memory_file.hpp"
#include "cli/exit_code.hpp"
#include "cli/gang_flags.hpp"
#include "cli/invocation.hpp"
#include "cli/running_model.hpp"

namespace troupe::cli {

// What the process inherited. Kept until it ends: the control plane reads certificates by path.
struct rank_inheritance {
  base::fd channel;
  base::memory_map vitals;
  base::credential_files credentials;
};

// First thing in a rank's process. Errors: unavailable (the supervisor is gone),
// invalid_argument (a descriptor that is not what it should be).
[[nodiscard]] base::result<rank_inheritance> inherit(const rank_seat& seat);

struct rank_parts {
  const rank_seat& seat;
  const model_flags& model;
  const gang_flags& gang;
  const opened_model& opened;
  workload load;
  bool one_shot = false;  // a command that speaks on stdout: logs from warnings up
};

// What a member of the gang is made of; engine limits as start_model would choose them.
struct rank_setup {
  gang_topology topology;
  engine_limits limits;
  actors::gang_process_options process;
  std::shared_ptr<const actors::share_book> shares;  // of a leader that serves
};
[[nodiscard]] base::result<rank_setup> set_up_rank(const rank_parts& parts,
                                                   rank_inheritance& inherited);

[[nodiscard]] base::result<base::logger> make_rank_log(const rank_parts& parts);

// Ends the process at once: threads of libraries that cannot be joined in time do not matter.
[[noreturn]] void end_process(exit_code code);

// A rank above 0: works until the end.
[[noreturn]] void run_worker_rank(const rank_parts& parts);

}  // namespace troupe::cli
