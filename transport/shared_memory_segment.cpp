#include "transport/shared_memory_segment.hpp"

#include "base/check.hpp"
#include "transport/shared_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace troupe::transport {
namespace {

constexpr std::uint64_t segment_magic = 0x736d656d75727474ULL;  // "ttrumems" in memory
constexpr std::uint32_t segment_version = 1;
constexpr int required_seals = F_SEAL_SHRINK | F_SEAL_GROW;

tl::unexpected<base::error> refuse(std::string message) {
  return base::fail(base::error_code::invalid_argument, "transport", std::move(message));
}

tl::unexpected<base::error> exhausted(std::string_view what) {
  return base::fail(base::error_code::resource_exhausted, "transport",
                    fmt::format("shared memory segment: {}: {}", what, std::strerror(errno)), true);
}

constexpr std::size_t whole_pages(std::size_t bytes) {
  return (bytes + shared_page_bytes - 1) / shared_page_bytes * shared_page_bytes;
}

// Never to be executed, where the kernel knows that (6.3): some hosts refuse any other.
int new_memory() noexcept {
  constexpr unsigned never_executed = 0x0008;  // MFD_NOEXEC_SEAL
  constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const int segment = ::memfd_create("troupe-gang", flags | never_executed);
  return segment >= 0 || errno != EINVAL ? segment : ::memfd_create("troupe-gang", flags);
}

// What a rank cannot check about a header is whether its maker wrote it: the supervisor passes the
// descriptor itself.
base::result<void> check_header(const shared_control& control) {
  if (control.magic != segment_magic) {
    return refuse("the descriptor is no shared memory segment of a gang; pass the supervisor's");
  }
  if (control.version == segment_version) return {};
  return refuse(
      fmt::format("shared memory segment of version {}, this program knows {}; run one "
                  "build on the whole host",
                  control.version, segment_version));
}

}  // namespace

shared_layout::shared_layout(int ranks) noexcept {
  const auto count = static_cast<std::size_t>(ranks);
  ranks_at = sizeof(shared_control);
  counts_at = ranks_at + count * sizeof(shared_rank);
  indices_at = counts_at + count * shared_groups * sizeof(shared_board_count);
  boards_at = whole_pages(indices_at + count * count * sizeof(shared_ring_indices));
  const std::size_t boards = count * shared_groups * 2;
  rings_at = whole_pages(boards_at + boards * (board_header_bytes + board_bytes));
  bytes = rings_at + count * count * ring_bytes(ranks);
}

std::size_t shared_segment_bytes(int ranks) {
  TROUPE_CHECK(ranks >= 1 && ranks <= group_size_max);
  return shared_layout(ranks).bytes;
}

base::result<base::fd> make_shared_segment(base::epoch_id epoch, int ranks) {
  if (ranks < 1 || ranks > group_size_max) {
    return refuse(
        fmt::format("shared memory for {} ranks; a gang has 1 to {}", ranks, group_size_max));
  }
  base::fd segment(new_memory());
  if (!segment) return exhausted("memfd_create");
  if (::fchmod(segment.get(), S_IRUSR | S_IWUSR) != 0) return exhausted("fchmod");
  const auto bytes = static_cast<off_t>(shared_segment_bytes(ranks));
  if (::ftruncate(segment.get(), bytes) != 0) return exhausted("ftruncate");
  if (::fcntl(segment.get(), F_ADD_SEALS, required_seals | F_SEAL_SEAL) != 0) {
    return exhausted("seals");
  }
  void* page =
      ::mmap(nullptr, sizeof(shared_control), PROT_READ | PROT_WRITE, MAP_SHARED, segment.get(), 0);
  if (page == MAP_FAILED) return exhausted("mmap");
  auto* control = new (page) shared_control{};
  control->magic = segment_magic;
  control->version = segment_version;
  control->ranks = static_cast<std::uint32_t>(ranks);
  control->epoch = epoch;
  ::munmap(page, sizeof(shared_control));
  return segment;
}

base::result<std::size_t> shared_descriptor_bytes(int segment) {
  struct stat status {};
  if (::fstat(segment, &status) != 0 || !S_ISREG(status.st_mode)) {
    return refuse("the descriptor is no shared memory segment of a gang; pass the supervisor's");
  }
  // Without the seals another holder could shrink the file and every access would be a SIGBUS.
  const int seals = ::fcntl(segment, F_GET_SEALS);
  if (seals < 0 || (seals & required_seals) != required_seals) {
    return refuse("a shared memory segment must be sealed against a change of its size");
  }
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes >= sizeof(shared_control)) return bytes;
  return refuse(fmt::format("shared memory segment of {} bytes has no header", bytes));
}

base::result<std::shared_ptr<shared_segment>> shared_segment::map(base::fd segment,
                                                                  base::epoch_id epoch, int ranks) {
  const std::size_t bytes = shared_segment_bytes(ranks);
  TROUPE_TRY(found_bytes, shared_descriptor_bytes(segment.get()));
  void* page = ::mmap(nullptr, sizeof(shared_control), PROT_READ, MAP_SHARED, segment.get(), 0);
  if (page == MAP_FAILED) return exhausted("mmap");
  auto* control = static_cast<const shared_control*>(page);
  auto known = check_header(*control);
  const base::epoch_id found = control->epoch;
  const std::uint32_t found_ranks = control->ranks;
  ::munmap(page, sizeof(shared_control));
  TROUPE_TRY_VOID(known);
  // The epoch first: a segment of another epoch may well be of another shape.
  TROUPE_TRY_VOID(check_epoch(found, epoch));
  if (found_ranks != static_cast<std::uint32_t>(ranks)) {
    return refuse(
        fmt::format("shared memory segment for {} ranks, this gang has {}", found_ranks, ranks));
  }
  if (found_bytes != bytes) {
    return refuse(fmt::format("shared memory segment of {} bytes, a gang of {} ranks has {}",
                              found_bytes, ranks, bytes));
  }
  void* mapped =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, segment.get(), 0);
  if (mapped == MAP_FAILED) return exhausted("mmap");
  ::madvise(mapped, bytes, MADV_DONTDUMP);  // activations and tokens stay out of core files
  return std::shared_ptr<shared_segment>(
      new shared_segment(static_cast<std::byte*>(mapped), ranks));
}

shared_segment::~shared_segment() { ::munmap(bytes_, layout_.bytes); }

base::result<shared_segment_watch> shared_segment_watch::open(int segment) {
  TROUPE_TRY_VOID(shared_descriptor_bytes(segment));
  void* page =
      ::mmap(nullptr, sizeof(shared_control), PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0);
  if (page == MAP_FAILED) return exhausted("mmap");
  shared_segment_watch watch(page);
  TROUPE_TRY_VOID(check_header(*static_cast<const shared_control*>(page)));
  return watch;
}

shared_segment_watch::~shared_segment_watch() {
  if (page_ != nullptr) ::munmap(page_, sizeof(shared_control));
}

void shared_segment_watch::abort() noexcept {
  abort_shared_epoch(*static_cast<shared_control*>(page_));
}

bool shared_segment_watch::aborted() const noexcept {
  return (static_cast<const shared_control*>(page_)->word.load() & epoch_over) != 0;
}

}  // namespace troupe::transport
