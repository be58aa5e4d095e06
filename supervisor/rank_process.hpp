// One rank's process as its supervisor holds it: the child, the channel to it, its vitals page.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/channel.hpp"
#include "base/error.hpp"
#include "base/memory_file.hpp"
#include "base/process.hpp"
#include "base/tls.hpp"
#include "schemas/supervisor_message.hpp"
#include "supervisor/supervisor.hpp"
#include "supervisor/vitals_watch.hpp"

namespace troupe::supervisor {

class rank_process {
 public:
  // What it has not read yet; more than that, and it is lost.
  static constexpr std::size_t outbox_max = 256;
  // Taken from one rank at a time, so that the others' turn comes.
  static constexpr int messages_per_turn = 64;

  struct start_options {
    base::rank_id rank;
    rank_command command;
    const base::credential_files* credentials = nullptr;  // none: not inherited
    int listening = -1;                                   // -1: not inherited
    bool keeps_terminal = false;  // stdin, stdout and the process group are the supervisor's
  };
  [[nodiscard]] static base::result<rank_process> start(const start_options& options);

  [[nodiscard]] const base::child_process& child() const noexcept { return child_; }
  [[nodiscard]] int channel_descriptor() const noexcept { return channel_.descriptor(); }
  [[nodiscard]] bool channel_is_open() const noexcept { return open_; }
  [[nodiscard]] bool has_outbox() const noexcept { return !outbox_.empty(); }

  // Sends or keeps the message, with a copy of `descriptor` unless that is -1.
  // Errors: resource_exhausted (the rank does not read).
  [[nodiscard]] base::result<void> tell(const schemas::supervisor_message& message,
                                        int descriptor = -1);
  void flush();

  struct heard {
    std::vector<schemas::supervisor_message> messages;
    std::vector<std::string> refused;  // why
  };
  // What the rank said, at most messages_per_turn of it.
  [[nodiscard]] heard receive();

  [[nodiscard]] vitals_sample vitals() const;

 private:
  struct letter {
    std::vector<std::uint8_t> bytes;
    base::fd descriptor;
  };
  rank_process(base::child_process child, base::channel channel, base::memory_map page)
      : child_(std::move(child)), channel_(std::move(channel)), page_(std::move(page)) {}

  base::child_process child_;
  base::channel channel_;
  base::memory_map page_;
  std::deque<letter> outbox_;
  bool open_ = true;
};

}  // namespace troupe::supervisor
