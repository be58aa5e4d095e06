// Real clients against the real HTTP server: a headless Chromium on the page, the official Python
// client. Each is a Python script that ends with 77 where its client is not installed.
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>

#include "tests/serving/live_server.hpp"

namespace troupe::serving::test {
namespace {

struct script_run {
  int code = -1;
  std::string output;
};

script_run run_script(const std::string& script, const std::string& arguments) {
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

constexpr int skipped = 77;

void expect_passes(const std::string& script, const std::string& arguments) {
  const script_run run = run_script(script, arguments);
  if (run.code == skipped) GTEST_SKIP() << run.output;
  EXPECT_EQ(run.code, 0) << run.output;
}

TEST(RealClients, ThePageWorksInHeadlessChromium) {
  const std::string key = "a-key-of-32-characters-for-tests";
  live_server open;
  live_server locked(key + "\n");
  const char* const folder = std::getenv("TROUPE_SCREENSHOTS");  // to look at it oneself
  expect_passes("page_test.py",
                "--url " + open.url() + " --locked-url " + locked.url() + " --key " + key +
                    (folder != nullptr ? " --screenshots '" + std::string(folder) + "'" : ""));
}

TEST(RealClients, TheOfficialPythonClientWorks) {
  const std::string key = "a-key-of-32-characters-for-tests";
  live_server server(key + "\n");
  expect_passes("openai_client_test.py",
                "--scripted --no-install --key " + key + " " + server.url() + "/v1");
}

}  // namespace
}  // namespace troupe::serving::test
