#include "models/weight_digest_cache.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/entropy.hpp"
#include "base/fd.hpp"
#include "models/checkpoint_file.hpp"

namespace troupe::models {
namespace {

namespace fs = std::filesystem;

// magic, key, count (4 bytes), count times {index (4 bytes), digest}, SHA-256 of all before.
// Numbers are little-endian.
constexpr std::string_view magic = "troupe weight digests 1\n";
constexpr std::string_view suffix = ".digests";
constexpr std::size_t digest_bytes = sizeof(base::digest);
constexpr std::size_t entry_bytes = 4 + digest_bytes;
constexpr std::size_t head_bytes = magic.size() + digest_bytes + 4;
constexpr std::size_t key_digits = 32;  // of the key in a name; the whole key is in the file

tl::unexpected<base::error> refuse(const fs::path& path, int error_number) {
  return base::fail(
      base::error_code::unavailable, "models",
      fmt::format("{}: {}", path.string(), std::generic_category().message(error_number)));
}

std::string_view text_of(const base::digest& of) {
  return {reinterpret_cast<const char*>(of.data()), of.size()};
}

void append(std::string& text, std::uint32_t number) {
  for (unsigned shift = 0; shift < 32; shift += 8) {
    text.push_back(static_cast<char>(number >> shift));
  }
}

std::uint32_t number_at(std::string_view text, std::size_t at) {
  std::uint32_t number = 0;
  for (unsigned i = 0; i < 4; ++i) {
    number |= static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i])) << (8 * i);
  }
  return number;
}

std::string encode(const base::digest& key, const leaf_digests& known) {
  std::string text(magic);
  text += text_of(key);
  append(text, static_cast<std::uint32_t>(std::ranges::count_if(
                   known, [](const auto& leaf) { return leaf.has_value(); })));
  for (std::size_t i = 0; i < known.size(); ++i) {
    if (!known[i]) continue;
    append(text, static_cast<std::uint32_t>(i));
    text += text_of(*known[i]);
  }
  text += text_of(base::sha256_of(text));
  return text;
}

// What a file says of `leaves` leaves; nullopt: anything about it is wrong.
std::optional<leaf_digests> decode(std::string_view text, const base::digest& key,
                                   std::size_t leaves) {
  if (text.size() < head_bytes + digest_bytes) return std::nullopt;
  const std::string_view body = text.substr(0, text.size() - digest_bytes);
  if (text.substr(body.size()) != text_of(base::sha256_of(body))) return std::nullopt;
  if (!body.starts_with(magic) || body.substr(magic.size(), digest_bytes) != text_of(key)) {
    return std::nullopt;
  }
  const std::size_t count = number_at(body, head_bytes - 4);
  if (count > leaves || body.size() != head_bytes + count * entry_bytes) return std::nullopt;
  leaf_digests read(leaves);
  for (std::size_t at = head_bytes; at < body.size(); at += entry_bytes) {
    const std::size_t leaf = number_at(body, at);
    if (leaf >= leaves || read[leaf]) return std::nullopt;
    std::memcpy(read[leaf].emplace().data(), body.data() + at + 4, digest_bytes);
  }
  return read;
}

// False: they differ in a leaf.
bool merge(const leaf_digests& from, leaf_digests& into) {
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (!from[i]) continue;
    if (into[i] && *into[i] != *from[i]) return false;
    into[i] = from[i];
  }
  return true;
}

// Our own regular file that nobody else can write, at most `bytes_max` long.
std::optional<std::string> read_own_file(const fs::path& path, std::size_t bytes_max) {
  const base::fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0) return std::nullopt;
  if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 022U) != 0 ||
      status.st_size < 0 || static_cast<std::uint64_t>(status.st_size) > bytes_max) {
    return std::nullopt;
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  const auto read_at = [&](std::byte* to, std::size_t count, std::uint64_t from) {
    return static_cast<std::int64_t>(::pread(file.get(), to, count, static_cast<off_t>(from)));
  };
  if (!read_fully(read_at, 0, std::as_writable_bytes(std::span(text)), path.string())) {
    return std::nullopt;
  }
  return text;
}

base::result<void> write_all(const fs::path& path, std::string_view text) {
  const base::fd file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return refuse(path, errno);
  while (!text.empty()) {
    const ssize_t count = ::write(file.get(), text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return refuse(path, errno);
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

// Paths in a folder of ours, a bounded number.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code problem;
  fs::directory_iterator at(folder, problem);
  while (!problem && at != fs::directory_iterator() &&
         found.size() < digest_cache_limits::seen_max) {
    found.push_back(at->path());
    at.increment(problem);
  }
  return found;
}

}  // namespace

std::string weight_digest_cache::prefix() const {
  return base::to_hex(key_).substr(0, key_digits) + "-";
}

leaf_digests weight_digest_cache::read(std::size_t leaves) const {
  leaf_digests known(leaves);
  const std::size_t bytes_max = head_bytes + leaves * entry_bytes + digest_bytes;
  std::vector<fs::path> taken;
  for (const fs::path& path : entries_of(folder_)) {
    const std::string name = path.filename().string();
    if (!name.starts_with(prefix()) || !name.ends_with(suffix)) continue;
    const auto text = read_own_file(path, bytes_max);
    const auto said = text ? decode(*text, key_, leaves) : std::nullopt;
    if (!said) continue;
    taken.push_back(path);
    if (merge(*said, known)) continue;
    // At least one is wrong and none can say which: they are made anew.
    for (const fs::path& each : taken) {
      std::error_code ignored;
      fs::remove(each, ignored);
    }
    return leaf_digests(leaves);
  }
  return known;
}

base::result<void> weight_digest_cache::write(std::string_view tag,
                                              const leaf_digests& known) const {
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem) return refuse(folder_, problem.value());
  TROUPE_TRY(chance, base::draw_seed());
  const fs::path path = folder_ / fmt::format("{}{}{}", prefix(), tag, suffix);
  const fs::path unfinished = folder_ / fmt::format("{}{}-{:016x}.new", prefix(), tag, chance);
  auto written = write_all(unfinished, encode(key_, known));
  if (written && ::rename(unfinished.c_str(), path.c_str()) != 0) written = refuse(path, errno);
  if (!written) {
    ::unlink(unfinished.c_str());
    return written;
  }
  remove_oldest();
  return {};
}

void weight_digest_cache::remove_oldest() const {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  for (const fs::path& path : entries_of(folder_)) {
    const std::string name = path.filename().string();
    if (!name.ends_with(suffix) && !name.ends_with(".new")) continue;
    std::error_code gone;
    const auto written = fs::last_write_time(path, gone);
    if (!gone && !name.starts_with(prefix())) files.emplace_back(written, path);
  }
  if (files.size() <= digest_cache_limits::files_max) return;
  std::ranges::sort(files);
  files.resize(files.size() - digest_cache_limits::files_max);
  for (const auto& [written, path] : files) {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
}

}  // namespace troupe::models
