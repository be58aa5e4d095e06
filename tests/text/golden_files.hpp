// Reads the golden files of tests/golden/text.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace troupe::text {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/golden/text";
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  EXPECT_TRUE(file.good()) << path;
  return bytes.str();
}

// Ordered: the order of keys is part of what a template writes.
using json = nlohmann::ordered_json;

inline json read_json(const std::filesystem::path& path) { return json::parse(read_text(path)); }

inline std::vector<std::string> folders_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace troupe::text
