// A model loaded over a gang of processes, for a command of rank 0 that drives the engine itself.
#pragma once

#include <memory>

#include "cli/rank_process.hpp"
#include "cli/running_model.hpp"

namespace troupe::cli {

// Rank 0's part in the gang; outlives the running_model that was made with it.
class gang_member {
 public:
  // Joins the gang and waits until it is connected.
  // Errors: what ended the gang; those of set_up_rank.
  [[nodiscard]] static base::result<std::unique_ptr<gang_member>> join(const rank_parts& parts);
  gang_member(const gang_member&) = delete;
  gang_member& operator=(const gang_member&) = delete;
  ~gang_member();

  // Once.
  [[nodiscard]] base::result<running_model> start(const rank_parts& parts);

 private:
  class state;
  explicit gang_member(std::unique_ptr<state> made);
  std::unique_ptr<state> state_;
};

// The part of a command's body after its flags are checked: in the user's process it becomes the
// supervisor, in a rank above 0 it works until the end, in rank 0 (or over threads) it goes on.
struct gang_command {
  const invocation& called;
  const model_flags& model;
  const opened_model& opened;
  workload load;
  std::string prompt_file = {};  // see rank_seat
};
// Units of what `run` gets: a loaded model. It returns the command's exit code.
[[nodiscard]] exit_code run_over_ranks(const gang_command& command,
                                       const std::function<exit_code(running_model&)>& run);

}  // namespace troupe::cli
