// YAML that people review: block style, comments above the fields they speak of.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace troupe::lws {

// A key that begins with '#' is a comment: its value, a text, stands above the next key. Texts that
// YAML could read as something else are quoted. Written by hand: yaml-cpp's emitter keeps no
// comment line before the first key of a map, or before one that follows a sequence.
[[nodiscard]] std::string to_yaml(const nlohmann::ordered_json& tree);

}  // namespace troupe::lws
