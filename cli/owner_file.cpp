#include "cli/owner_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace troupe::cli {

base::result<void> write_owner_file(const std::filesystem::path& path, const std::string& text) {
  const base::fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return base::fail(base::error_code::failed_precondition, "cli",
                      "cannot write " + path.string() + ": it must not exist yet, its folder must");
  }
  return {};
}

}  // namespace troupe::cli
