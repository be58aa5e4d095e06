// Fields that messages share. Internal to schemas/.
#pragma once

#include <string>

#include "base/ids.hpp"
#include "schemas/control_message.capnp.h"

namespace troupe::schemas {

inline void write_epoch(wire::Epoch::Builder out, base::epoch_id epoch) {
  out.setIncarnation(epoch.incarnation);
  out.setNumber(epoch.number);
}

[[nodiscard]] inline base::epoch_id read_epoch(wire::Epoch::Reader in) {
  return {.incarnation = in.getIncarnation(), .number = in.getNumber()};
}

// Texts of the wire end up in logs: one line each, whatever the peer sent.
[[nodiscard]] inline std::string read_text(capnp::Text::Reader in) {
  std::string text(in.begin(), in.size());
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return text;
}

}  // namespace troupe::schemas
