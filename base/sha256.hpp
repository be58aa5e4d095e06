// SHA-256 (FIPS 180-4) over what is fed to it.
//
//   base::sha256 hash; hash.update(bytes); base::digest whole = hash.finish();
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace troupe::base {

using digest = std::array<std::uint8_t, 32>;

class sha256 {
 public:
  sha256();
  sha256(sha256&&) noexcept;
  sha256& operator=(sha256&&) noexcept;
  ~sha256();

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  // Ends the hash; the object may be used again for a new one.
  [[nodiscard]] digest finish();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

[[nodiscard]] digest sha256_of(std::string_view text);
// 64 lower-case hexadecimal digits.
[[nodiscard]] std::string to_hex(const digest& of);
// Takes the same time wherever two values of equal length differ.
[[nodiscard]] bool equal_in_constant_time(std::span<const std::uint8_t> a,
                                          std::span<const std::uint8_t> b) noexcept;

}  // namespace troupe::base
