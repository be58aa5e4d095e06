#include "kernels/queue.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/arena.hpp"

namespace troupe::kernels {

std::span<std::byte> queue::grow(std::vector<std::byte>& memory, std::size_t bytes) {
  const std::size_t wanted = bytes + arena::alignment_bytes;  // room to align the start
  if (memory.size() < wanted) memory.resize(std::max(wanted, 2 * memory.size()));
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::size_t skew =
      (arena::alignment_bytes - address % arena::alignment_bytes) % arena::alignment_bytes;
  return {memory.data() + skew, memory.size() - arena::alignment_bytes};
}

base::result<void> queue::read(const std::byte* from, std::span<std::byte> to) {
  if (!to.empty()) std::memcpy(to.data(), from, to.size());
  return {};
}

base::result<void> queue::write(std::span<const std::byte> from, std::byte* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
  return {};
}

base::result<void> queue::begin_recording() {
  return base::fail(base::error_code::unimplemented, "kernels", "this queue does not record");
}

base::result<std::unique_ptr<recording>> queue::end_recording() {
  return base::fail(base::error_code::unimplemented, "kernels", "this queue does not record");
}

}  // namespace troupe::kernels
