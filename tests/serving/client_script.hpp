// A real client as a Python script of this folder, run against a server.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace troupe::serving::test {

struct script_run {
  int code = -1;
  std::string output;
};

inline script_run run_script(const std::string& script, const std::string& arguments) {
  const char* const python = std::getenv("PYTHON");
  const std::string command = std::string(python != nullptr ? python : "python3") + " -B '" +
                              TROUPE_SOURCE_DIR + "/tests/serving/" + script + "' " + arguments +
                              " 2>&1";
  script_run out;
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  std::array<char, 4096> bytes{};
  while (const std::size_t size = std::fread(bytes.data(), 1, bytes.size(), pipe)) {
    out.output.append(bytes.data(), size);
  }
  const int status = ::pclose(pipe);
  out.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return out;
}

// Where its client is not installed.
inline constexpr int skipped = 77;

inline void expect_passes(const std::string& script, const std::string& arguments) {
  const script_run run = run_script(script, arguments);
  if (run.code == skipped) GTEST_SKIP() << run.output;
  EXPECT_EQ(run.code, 0) << run.output;
}

}  // namespace troupe::serving::test
