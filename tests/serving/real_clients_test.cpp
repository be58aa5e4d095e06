// Real clients against the real HTTP server: a headless Chromium on the page, the official Python
// client. Each is a Python script that ends with 77 where its client is not installed.
#include <cstdlib>

#include "tests/serving/client_script.hpp"
#include "tests/serving/live_server.hpp"

namespace troupe::serving::test {
namespace {

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
