#include "base/memory_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>

namespace troupe::base {
namespace {

tl::unexpected<error> refuse(const std::string& what) {
  const int number = errno;
  const bool scarce = number == ENOMEM || number == EMFILE || number == ENFILE || number == ENOSPC;
  return fail(scarce ? error_code::resource_exhausted : error_code::unavailable, "base",
              fmt::format("{}: {}", what, std::system_category().message(number)), scarce);
}

}  // namespace

result<fd> make_memory_file(const memory_file_options& options) {
  fd file(::memfd_create(options.name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return refuse(fmt::format("cannot make the memory file {}", options.name));
  if (::fchmod(file.get(), S_IRUSR | S_IWUSR) != 0 ||
      ::ftruncate(file.get(), static_cast<off_t>(options.bytes)) != 0 ||
      ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return refuse(
        fmt::format("cannot give the memory file {} {} bytes", options.name, options.bytes));
  }
  return file;
}

result<memory_map> memory_map::of(const fd& file, std::size_t bytes, memory_access access) {
  struct stat status {};
  const int seals = ::fcntl(file.get(), F_GET_SEALS);
  if (::fstat(file.get(), &status) != 0 || seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
      bytes == 0 || static_cast<std::size_t>(status.st_size) < bytes) {
    return fail(error_code::invalid_argument, "base",
                fmt::format("descriptor {} is no memory file of {} bytes that keeps its size",
                            file.get(), bytes));
  }
  const int protection = access == memory_access::read ? PROT_READ : PROT_READ | PROT_WRITE;
  void* at = ::mmap(nullptr, bytes, protection, MAP_SHARED, file.get(), 0);
  if (at == MAP_FAILED) return refuse(fmt::format("cannot map {} bytes", bytes));
  return memory_map(at, bytes);
}

memory_map& memory_map::operator=(memory_map&& other) noexcept {
  if (this != &other) {
    reset();
    at_ = std::exchange(other.at_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void memory_map::reset() noexcept {
  if (at_ != nullptr) ::munmap(at_, bytes_);
  at_ = nullptr;
}

}  // namespace troupe::base
