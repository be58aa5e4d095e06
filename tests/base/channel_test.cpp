// Datagrams between processes, memory they share, and lines that nobody reads.
#include "base/channel.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/line_writer.hpp"
#include "base/log.hpp"
#include "base/memory_file.hpp"

namespace troupe::base {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using kind = channel::datagram::what;

std::vector<std::uint8_t> bytes_of(std::size_t size) { return std::vector<std::uint8_t>(size, 7); }

int open_descriptors() {
  int count = 0;
  for (int number = 0; number < 1024; ++number) count += ::fcntl(number, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

TEST(Channel, KeepsDatagramsApart) {
  auto ends = channel::make_pair();
  ASSERT_TRUE(ends);
  EXPECT_EQ(*ends->first.send(bytes_of(3)), true);
  EXPECT_EQ(*ends->first.send(bytes_of(60'000)), true);
  EXPECT_EQ(ends->second.receive(65536)->bytes.size(), 3U);
  EXPECT_EQ(ends->second.receive(65536)->bytes, bytes_of(60'000));
  EXPECT_EQ(ends->second.receive(65536)->kind, kind::nothing);
}

TEST(Channel, CarriesDescriptorsThatCloseOnExec) {
  auto ends = channel::make_pair();
  const auto file = make_memory_file({.name = "test", .bytes = 4096});
  ASSERT_TRUE(ends && file);
  const std::array<int, 2> beside = {file->get(), file->get()};
  EXPECT_EQ(*ends->first.send(bytes_of(1), beside), true);
  const auto got = ends->second.receive(64);
  ASSERT_TRUE(got);
  ASSERT_EQ(got->descriptors.size(), 2U);
  struct stat sent {};
  struct stat came {};
  ASSERT_EQ(::fstat(file->get(), &sent), 0);
  ASSERT_EQ(::fstat(got->descriptors[1].get(), &came), 0);
  EXPECT_EQ(sent.st_ino, came.st_ino);
  EXPECT_EQ(::fcntl(got->descriptors[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(Channel, DoesNotBlockOnAPeerThatDoesNotRead) {
  auto ends = channel::make_pair();
  ASSERT_TRUE(ends);
  int sent = 0;
  for (; sent < 10'000; ++sent) {
    const auto outcome = ends->first.send(bytes_of(10'000));
    ASSERT_TRUE(outcome);
    if (!*outcome) break;
  }
  EXPECT_GT(sent, 2);
  EXPECT_LT(sent, 10'000);
  ASSERT_TRUE(ends->second.receive(65536));
  EXPECT_EQ(*ends->first.send(bytes_of(10'000)), true);
}

TEST(Channel, TellsThatThePeerIsGone) {
  auto ends = channel::make_pair();
  ASSERT_TRUE(ends);
  ASSERT_TRUE(ends->first.send(bytes_of(5)));
  std::move(ends->first).release().reset();
  EXPECT_EQ(ends->second.receive(64)->kind, kind::bytes);
  EXPECT_EQ(ends->second.receive(64)->kind, kind::closed);
  const auto outcome = ends->second.send(bytes_of(1));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, error_code::unavailable);
}

TEST(Channel, DropsALongDatagramAndTakesTheNext) {
  auto ends = channel::make_pair();
  const auto file = make_memory_file({.name = "test", .bytes = 1});
  ASSERT_TRUE(ends && file);
  const int before = open_descriptors();
  const std::array<int, 1> beside = {file->get()};
  ASSERT_TRUE(ends->first.send(bytes_of(65), beside));
  ASSERT_TRUE(ends->first.send(bytes_of(64)));
  const auto refused = ends->second.receive(64);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, error_code::invalid_argument);
  EXPECT_EQ(ends->second.receive(64)->bytes.size(), 64U);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Channel, ClosesDescriptorsThatAreTooMany) {
  auto ends = channel::make_pair();
  const auto file = make_memory_file({.name = "test", .bytes = 1});
  ASSERT_TRUE(ends && file);
  const int before = open_descriptors();
  // As a hostile peer sends them, past this class.
  constexpr std::size_t count = 40;
  std::array<int, count> numbers{};
  numbers.fill(file->get());
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof numbers)> control{};
  std::uint8_t byte = 1;
  iovec piece{&byte, 1};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  cmsghdr* part = CMSG_FIRSTHDR(&header);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof numbers);
  std::memcpy(CMSG_DATA(part), numbers.data(), sizeof numbers);
  ASSERT_EQ(::sendmsg(ends->first.descriptor(), &header, 0), 1);
  const auto refused = ends->second.receive(64);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, error_code::invalid_argument);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(MemoryFile, IsShared) {
  const auto file = make_memory_file({.name = "test", .bytes = 4096});
  ASSERT_TRUE(file);
  const auto writer = memory_map::of(*file, 4096, memory_access::read_write);
  const auto reader = memory_map::of(*file, 4096, memory_access::read);
  ASSERT_TRUE(writer && reader);
  static_cast<char*>(writer->data())[4095] = 'x';
  EXPECT_EQ(static_cast<const char*>(reader->data())[4095], 'x');
}

TEST(MemoryFile, KeepsItsSizeAndIsForItsUserOnly) {
  const auto file = make_memory_file({.name = "test", .bytes = 4096});
  ASSERT_TRUE(file);
  EXPECT_NE(::ftruncate(file->get(), 0), 0);
  EXPECT_NE(::ftruncate(file->get(), 8192), 0);
  struct stat status {};
  ASSERT_EQ(::fstat(file->get(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST(MemoryFile, RefusesToMapWhatCanShrinkOrIsTooShort) {
  const fd loose(::memfd_create("loose", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(loose.get(), 8192), 0);
  EXPECT_EQ(memory_map::of(loose, 4096, memory_access::read).error().code,
            error_code::invalid_argument);
  const auto file = make_memory_file({.name = "test", .bytes = 4096});
  ASSERT_TRUE(file);
  EXPECT_FALSE(memory_map::of(*file, 4097, memory_access::read));
  const fd null(::open("/dev/null", O_RDONLY));
  EXPECT_FALSE(memory_map::of(null, 1, memory_access::read));
}

struct full_pipe {
  full_pipe() {
    std::array<int, 2> both{};
    if (::pipe2(both.data(), O_CLOEXEC) == 0) {
      out = fd(both[0]);
      in = fd(both[1]);
    }
  }
  [[nodiscard]] std::string read() const {
    std::string text(1 << 20, '\0');
    const ssize_t length = ::read(out.get(), text.data(), text.size());
    text.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
    return text;
  }
  fd out;
  fd in;
};

TEST(LineWriter, DropsWhatAPipeDoesNotTakeAndLeavesItsFlagsAlone) {
  const full_pipe pipe;
  const line_writer out(pipe.in.get());
  const std::string line = std::string(999, 'x') + "\n";
  int written = 0;
  while (written < 100'000 && out.write(line)) ++written;
  EXPECT_GT(written, 10);
  EXPECT_LT(written, 100'000);
  EXPECT_EQ(::fcntl(pipe.in.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(pipe.read().size() % 1000, 0U);
  EXPECT_TRUE(out.write(line));
}

TEST(LineWriter, WritesFilesAtTheirEnd) {
  const fd file(::memfd_create("file", MFD_CLOEXEC));
  const line_writer out(file.get());
  EXPECT_TRUE(out.write("one\n"));
  EXPECT_TRUE(out.write("two\n"));
  std::array<char, 16> text{};
  EXPECT_EQ(::pread(file.get(), text.data(), text.size(), 0), 8);
  EXPECT_EQ(std::string(text.data(), 8), "one\ntwo\n");
}

TEST(LineWriter, DoesNotBlockOnASocket) {
  std::array<int, 2> both{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both.data()), 0);
  const fd in(both[0]);
  const fd out_end(both[1]);
  const line_writer out(in.get());
  int written = 0;
  while (written < 100'000 && out.write(std::string(999, 'x') + "\n")) ++written;
  EXPECT_GT(written, 10);
  EXPECT_LT(written, 100'000);
}

TEST(Log, WritesOneLineWithLevelRoleAndRank) {
  const full_pipe pipe;
  const auto log =
      logger::make({.role = "100% worker", .rank = rank_id{3}, .descriptor = pipe.in.get()});
  ASSERT_TRUE(log);
  log->warning("two\nlines \x1b[31m and a %s {} sign");
  const std::string text = pipe.read();
  EXPECT_THAT(text, EndsWith("Z warning 100% worker rank 3: two lines  [31m and a %s {} sign\n"));
  EXPECT_EQ(text.find('T'), 10U);  // 2026-11-21T12:40:08.123Z
  log->debug("below the level");
  log->info("next");
  EXPECT_THAT(pipe.read(), EndsWith("info 100% worker rank 3: next\n"));
}

TEST(Log, CutsALongLineAtACharacter) {
  const full_pipe pipe;
  const auto log = logger::make({.role = "r", .descriptor = pipe.in.get()});
  ASSERT_TRUE(log);
  std::string snow = "x";
  while (snow.size() < 9000) snow += "\xE2\x98\x83";
  log->info(snow);
  const std::string text = pipe.read();
  EXPECT_LT(text.size(), line_writer::line_bytes_max);
  EXPECT_THAT(text, EndsWith("\xE2\x98\x83 ...\n"));
}

TEST(Log, NeverWaitsForItsReaderAndSaysWhatWasLost) {
  const full_pipe pipe;
  const auto log = logger::make({.role = "r", .descriptor = pipe.in.get()});
  ASSERT_TRUE(log);
  const std::string line(1000, 'x');
  for (int count = 0; count < 1000; ++count) log->info(line);
  EXPECT_THAT(pipe.read(), Not(HasSubstr("lost")));
  log->info("after");
  EXPECT_THAT(pipe.read(), HasSubstr("lines before this one are lost"));
  log->info("again");
  EXPECT_THAT(pipe.read(), EndsWith(": again\n"));
}

TEST(Log, KnowsItsLevels) {
  EXPECT_EQ(*parse_log_level("debug"), log_level::debug);
  EXPECT_EQ(*parse_log_level("off"), log_level::off);
  const auto refused = parse_log_level("loud");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "log level 'loud': one of debug, info, warning, error, off");
  const full_pipe pipe;
  const auto log =
      logger::make({.role = "r", .level = log_level::off, .descriptor = pipe.in.get()});
  ASSERT_TRUE(log);
  EXPECT_FALSE(log->writes(log_level::error));
}

}  // namespace
}  // namespace troupe::base
