#include "models/checkpoint_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace troupe::models {
namespace {

constexpr std::string_view origin = "models";

std::string reason(int error_number) { return std::generic_category().message(error_number); }

base::error_code code_of(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return base::error_code::not_found;
    case EACCES:
    case EPERM:
      return base::error_code::permission_denied;
    case EMFILE:
    case ENFILE:
      return base::error_code::resource_exhausted;
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO:
      return base::error_code::invalid_argument;
    default:
      return base::error_code::data_loss;
  }
}

}  // namespace

base::result<void> read_fully(const read_at_function& read_at, std::uint64_t offset,
                              std::span<std::byte> out, const std::string& what) {
  while (!out.empty()) {
    const std::int64_t count = read_at(out.data(), out.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error_number = errno;
      return base::fail(base::error_code::data_loss, origin,
                        fmt::format("{}: cannot read {} bytes at offset {}: {}", what, out.size(),
                                    offset, reason(error_number)));
    }
    if (count == 0) {
      return base::fail(
          base::error_code::data_loss, origin,
          fmt::format(
              "{}: ends at offset {}, {} bytes too early: the file is cut off, fetch it again",
              what, offset, out.size()));
    }
    const auto done = static_cast<std::size_t>(count);
    out = out.subspan(done);
    offset += done;
  }
  return {};
}

base::result<checkpoint_file> checkpoint_file::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO would otherwise wait for a writer for ever.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) {
    const int error_number = errno;
    const char* remedy =
        error_number == EMFILE ? ": raise the limit of open files (ulimit -n)" : "";
    return base::fail(
        code_of(error_number), origin,
        fmt::format("{}: cannot open: {}{}", path.string(), reason(error_number), remedy));
  }
  checkpoint_file file(descriptor, 0);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) {
    const int error_number = errno;
    return base::fail(code_of(error_number), origin,
                      fmt::format("{}: cannot stat: {}", path.string(), reason(error_number)));
  }
  if (!S_ISREG(status.st_mode)) {
    return base::fail(base::error_code::invalid_argument, origin,
                      fmt::format("{}: not a regular file", path.string()));
  }
  file.bytes_ = static_cast<std::uint64_t>(status.st_size);
  return file;
}

checkpoint_file::checkpoint_file(checkpoint_file&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), bytes_(other.bytes_) {}

checkpoint_file& checkpoint_file::operator=(checkpoint_file&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

checkpoint_file::~checkpoint_file() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

base::result<void> checkpoint_file::read(std::uint64_t offset, std::span<std::byte> out,
                                         const std::string& what) const {
  const auto read_at = [this](std::byte* to, std::size_t count, std::uint64_t from) {
    return static_cast<std::int64_t>(::pread(descriptor_, to, count, static_cast<off_t>(from)));
  };
  return read_fully(read_at, offset, out, what);
}

base::result<std::string> read_text_file(const std::filesystem::path& path,
                                         std::uint64_t bytes_max) {
  TROUPE_TRY(file, checkpoint_file::open(path));
  if (file.bytes() > bytes_max) {
    return base::fail(
        base::error_code::invalid_argument, origin,
        fmt::format("{}: {} bytes, at most {} are read", path.string(), file.bytes(), bytes_max));
  }
  std::string text(static_cast<std::size_t>(file.bytes()), '\0');
  TROUPE_TRY_VOID(file.read(0, std::as_writable_bytes(std::span(text)), path.string()));
  return text;
}

}  // namespace troupe::models
