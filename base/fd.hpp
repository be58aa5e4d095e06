// An owned file descriptor: closed once, moved, never copied.
//
//   base::fd file(::memfd_create("segment", MFD_CLOEXEC));
//   if (!file) return base::fail(...);
#pragma once

#include <unistd.h>

#include <utility>

namespace troupe::base {

class fd {
 public:
  fd() noexcept = default;
  // Takes ownership; a negative number is "none", as the system calls return it.
  explicit fd(int number) noexcept : number_(number) {}
  fd(fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  fd& operator=(fd&& other) noexcept {
    if (this != &other) {
      reset();
      number_ = std::exchange(other.number_, -1);
    }
    return *this;
  }
  ~fd() { reset(); }

  [[nodiscard]] explicit operator bool() const noexcept { return number_ >= 0; }
  [[nodiscard]] int get() const noexcept { return number_; }
  // Gives up ownership.
  [[nodiscard]] int release() noexcept { return std::exchange(number_, -1); }
  void reset() noexcept {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
  }

 private:
  int number_ = -1;
};

}  // namespace troupe::base
