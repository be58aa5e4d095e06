#include "models/weight_digest_cache.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/models/mutation.hpp"

namespace troupe::models {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t leaves = 40;

base::digest digest_of(const std::string& text) { return base::sha256_of(text); }

leaf_digests some(std::size_t begin, std::size_t end) {
  leaf_digests known(leaves);
  for (std::size_t i = begin; i < end; ++i) known[i] = digest_of(std::to_string(i));
  return known;
}

class WeightDigestCache : public testing::Test {
 protected:
  WeightDigestCache() {
    std::string pattern = (fs::temp_directory_path() / "troupe-digests-XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) root_ = pattern;
  }
  ~WeightDigestCache() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  [[nodiscard]] fs::path folder() const { return root_ / "state" / "digests"; }
  [[nodiscard]] weight_digest_cache cache(const std::string& key = "key") const {
    return {folder(), digest_of(key)};
  }
  [[nodiscard]] std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder())) found.push_back(entry.path());
    return found;
  }
  void write(const std::string& tag, const leaf_digests& known) const {
    const auto written = cache().write(tag, known);
    ASSERT_TRUE(written.has_value()) << written.error().message;
  }
  // Writes one good file and says where it is.
  [[nodiscard]] fs::path good_file() const {
    write("tp0of1-pp0of1", some(0, leaves));
    return files().front();
  }
  [[nodiscard]] bool knows_nothing() const { return cache().read(leaves) == leaf_digests(leaves); }

 private:
  fs::path root_;
};

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void put(const fs::path& path, const std::string& bytes) {
  fs::remove(path);  // a file cut down to nothing is flushed to the disk by some file systems
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST_F(WeightDigestCache, GivesBackWhatEveryRankHasWritten) {
  EXPECT_TRUE(knows_nothing()) << "of a folder that is not there";
  write("tp0of2-pp0of1", some(0, 20));
  EXPECT_EQ(cache().read(leaves), some(0, 20));
  write("tp1of2-pp0of1", some(15, 30));
  EXPECT_EQ(cache().read(leaves), some(0, 30));
  write("tp1of2-pp0of1", some(20, leaves));
  EXPECT_EQ(cache().read(leaves), some(0, leaves));
  EXPECT_EQ(files().size(), 2U);
}

TEST_F(WeightDigestCache, IsOfThisUserAlone) {
  struct stat status {};
  ASSERT_EQ(::stat(good_file().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

TEST_F(WeightDigestCache, HasNothingUnderAnotherKey) {
  const fs::path path = good_file();
  EXPECT_EQ(cache("other").read(leaves), leaf_digests(leaves));
  // Nor where the name says that it is the key's.
  const std::string digits = base::to_hex(digest_of("other")).substr(0, 32);
  fs::copy_file(path, folder() / (digits + path.filename().string().substr(32)));
  EXPECT_EQ(cache("other").read(leaves), leaf_digests(leaves));
}

TEST_F(WeightDigestCache, HasNothingOfAnotherNumberOfLeaves) {
  static_cast<void>(good_file());
  EXPECT_EQ(cache().read(leaves - 1), leaf_digests(leaves - 1));
  EXPECT_EQ(cache().read(0), leaf_digests(0));
}

TEST_F(WeightDigestCache, TakesNoAlteredFile) {
  const fs::path path = good_file();
  const std::string good = bytes_of(path);
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    put(path, bad);
    ASSERT_TRUE(knows_nothing()) << "byte " << at;
    put(path, good.substr(0, at));
    ASSERT_TRUE(knows_nothing()) << "cut off after " << at;
  }
  put(path, good + "x");
  EXPECT_TRUE(knows_nothing());
  put(path, good);
  EXPECT_FALSE(knows_nothing());
}

// With a sum that fits, so that what is behind it is reached.
TEST_F(WeightDigestCache, TakesNoMadeUpFile) {
  const fs::path path = good_file();
  const std::string good = bytes_of(path);
  const std::string body = good.substr(0, good.size() - 32);
  constexpr std::uint64_t seed = 4711;
  mutator chance(seed);
  for (int round = 0; round < 500; ++round) {
    const std::string bad = chance.mutated(body);
    const base::digest sum = digest_of(bad);
    put(path, bad + std::string(sum.begin(), sum.end()));
    const leaf_digests read = cache().read(leaves);
    ASSERT_EQ(read.size(), leaves) << "seed " << seed << ", round " << round;
  }
  // One leaf twice.
  std::string twice = body;
  twice.replace(twice.size() - 36, 4, std::string(4, '\0'));
  const base::digest sum = digest_of(twice);
  put(path, twice + std::string(sum.begin(), sum.end()));
  EXPECT_TRUE(knows_nothing());
}

TEST_F(WeightDigestCache, TakesNoFileThatOthersMayWrite) {
  const fs::path path = good_file();
  for (const auto mode : {0620U, 0602U}) {
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
    EXPECT_TRUE(knows_nothing()) << mode;
  }
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  EXPECT_FALSE(knows_nothing());
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(path.c_str(), 12345, 12345), 0);
    EXPECT_TRUE(knows_nothing());
  }
}

TEST_F(WeightDigestCache, TakesNoLinkPipeOrFolder) {
  const fs::path path = good_file();
  const fs::path elsewhere = folder().parent_path() / "elsewhere";
  fs::rename(path, elsewhere);
  fs::create_symlink(elsewhere, path);
  EXPECT_TRUE(knows_nothing());
  fs::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_TRUE(knows_nothing());
  fs::remove(path);
  fs::create_directory(path);
  EXPECT_TRUE(knows_nothing());
}

TEST_F(WeightDigestCache, ForgetsFilesThatContradictEachOther) {
  write("tp0of2-pp0of1", some(0, 20));
  leaf_digests other = some(10, 30);
  other[12] = digest_of("something else");
  write("tp1of2-pp0of1", other);
  EXPECT_TRUE(knows_nothing());
  EXPECT_THAT(files(), testing::IsEmpty());
}

TEST_F(WeightDigestCache, KeepsABoundedNumberOfFiles) {
  for (std::size_t i = 0; i < digest_cache_limits::files_max + 5; ++i) {
    const auto written = cache("model " + std::to_string(i)).write("whole", some(0, 1));
    ASSERT_TRUE(written.has_value()) << written.error().message;
  }
  EXPECT_LE(files().size(), digest_cache_limits::files_max + 1);
}

TEST_F(WeightDigestCache, SaysWhyItCannotBeWritten) {
  fs::create_directories(folder().parent_path());
  put(folder(), "a file where the folder should be");
  const auto written = cache().write("whole", some(0, 1));
  ASSERT_FALSE(written.has_value());
  EXPECT_EQ(written.error().code, base::error_code::unavailable);
  EXPECT_THAT(written.error().message, testing::HasSubstr(folder().string()));
  EXPECT_TRUE(knows_nothing());
}

// As ranks of one host do. A reader never sees a part of a file: a leaf of it is there or none is.
TEST_F(WeightDigestCache, HasWholeFilesWhileManyWrite) {
  constexpr int writers = 4;
  constexpr int rounds = 150;
  write("tag0", some(0, 10));
  std::atomic<int> writing{writers};
  std::vector<std::thread> threads;
  for (int writer = 0; writer < writers; ++writer) {
    threads.emplace_back([&, writer] {  // two write each file
      const int file = writer / 2;
      const auto first = static_cast<std::size_t>(file * 10);
      for (int round = 0; round < rounds; ++round) {
        EXPECT_TRUE(cache().write("tag" + std::to_string(file), some(first, first + 10)));
      }
      --writing;
    });
  }
  int reads = 0;
  while (writing > 0 || reads == 0) {
    const leaf_digests read = cache().read(leaves);
    ++reads;
    EXPECT_TRUE(read == some(0, 10) || read == some(0, 20)) << "read " << reads;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(cache().read(leaves), some(0, 20));
  EXPECT_EQ(files().size(), 2U) << "an unfinished file stayed";
}

}  // namespace
}  // namespace troupe::models
