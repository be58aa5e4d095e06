#include "models/checkpoint_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

base::result<checkpoint_file> checkpoint_file::open(const model_folder& folder,
                                                    std::string_view name) {
  if (!folder.is_linked()) return open(folder / name);
  const linked_file* found = folder.find_linked(name);
  if (found != nullptr) return checkpoint_file(found->bytes);
  return base::fail(base::error_code::not_found, origin,
                    fmt::format("{}: no such file", (folder / name).string()));
}

checkpoint_file::checkpoint_file(checkpoint_file&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      linked_(other.linked_),
      bytes_(other.bytes_) {}

checkpoint_file& checkpoint_file::operator=(checkpoint_file&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(linked_, other.linked_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

checkpoint_file::~checkpoint_file() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

base::result<void> checkpoint_file::read(std::uint64_t offset, std::span<std::byte> out,
                                         const std::string& what) const {
  const auto read_at = [this](std::byte* to, std::size_t count, std::uint64_t from) {
    if (descriptor_ < 0) {
      const auto rest = linked_.subspan(std::min<std::size_t>(from, linked_.size()));
      const auto part = rest.first(std::min(count, rest.size()));
      std::ranges::copy(part, to);
      return static_cast<std::int64_t>(part.size());
    }
    return static_cast<std::int64_t>(::pread(descriptor_, to, count, static_cast<off_t>(from)));
  };
  return read_fully(read_at, offset, out, what);
}

base::result<std::optional<file_identity>> checkpoint_file::identity(
    const std::string& what) const {
  if (descriptor_ < 0) return std::nullopt;
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    const int error_number = errno;
    return base::fail(base::error_code::data_loss, origin,
                      fmt::format("{}: cannot stat: {}", what, reason(error_number)));
  }
  constexpr std::int64_t ns_per_s = 1'000'000'000;
  return file_identity{.device = status.st_dev,
                       .inode = status.st_ino,
                       .bytes = static_cast<std::uint64_t>(status.st_size),
                       .modified_ns = status.st_mtim.tv_sec * ns_per_s + status.st_mtim.tv_nsec};
}

base::result<std::string> read_text_file(const model_folder& folder, std::string_view name,
                                         std::uint64_t bytes_max) {
  const std::filesystem::path path = folder / name;
  TROUPE_TRY(file, checkpoint_file::open(folder, name));
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
