#include "models/checkpoint.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "models/checkpoint_file.hpp"
#include "tests/models/safetensors_cases.hpp"

namespace troupe::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Checkpoint : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) /
              ("troupe_" + std::string(test->name()) + "_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  void write_shard(const std::string& name, const json& header, std::size_t data_bytes) const {
    write(name, safetensors_bytes(header.dump(), counted_bytes(data_bytes)));
  }
  void write_index(const json& weight_map) const {
    write("model.safetensors.index.json",
          json{{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}}.dump());
  }
  // "norm" is 4 x F32, "proj" 2 x 3 BF16.
  void write_single() const {
    write_shard("model.safetensors",
                {{"model.norm.weight", tensor_entry("F32", {4}, 0, 16)},
                 {"model.layers.0.proj.weight", tensor_entry("BF16", {2, 3}, 16, 28)}},
                28);
  }
  void write_two() const {
    write_shard("a.safetensors", {{"x", tensor_entry("F32", {2}, 0, 8)}}, 8);
    write_shard("b.safetensors", {{"y", tensor_entry("F16", {3}, 0, 6)}}, 6);
    write_index({{"x", "a.safetensors"}, {"y", "b.safetensors"}});
  }
  std::string refusal(base::error_code code) const {
    const auto opened = checkpoint::open(folder_);
    if (opened) return "accepted";
    EXPECT_EQ(opened.error().code, code) << opened.error().message;
    EXPECT_EQ(opened.error().message.find('\n'), std::string::npos) << opened.error().message;
    return opened.error().message;
  }

  fs::path folder_;
};

constexpr auto invalid = base::error_code::invalid_argument;

std::string read_all(const checkpoint& weights, const tensor_info& tensor, std::uint64_t offset,
                     std::size_t count) {
  std::string out(count, '?');
  const auto done =
      weights.read(tensor, offset, std::as_writable_bytes(std::span(out.data(), out.size())));
  EXPECT_TRUE(done) << done.error().message;
  return out;
}

TEST_F(Checkpoint, ReadsSlicesOfASingleFile) {
  write_single();
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights) << weights.error().message;
  ASSERT_EQ(weights->tensors().size(), 2U);
  EXPECT_EQ(weights->tensors()[0].name, "model.layers.0.proj.weight");  // sorted
  const auto tensor = weights->find("model.layers.0.proj.weight");
  ASSERT_TRUE(tensor);
  EXPECT_EQ((*tensor)->dtype, stored_dtype::bfloat16);
  EXPECT_EQ((*tensor)->bytes, 12U);
  EXPECT_EQ(read_all(*weights, **tensor, 0, 12), counted_bytes(28).substr(16));
  EXPECT_EQ(read_all(*weights, **tensor, 5, 7), counted_bytes(28).substr(21));
  EXPECT_EQ(read_all(*weights, **tensor, 12, 0), "");
  EXPECT_TRUE(weights->contains("model.norm.weight"));
  EXPECT_FALSE(weights->contains("model.norm.weigh"));
}

TEST_F(Checkpoint, ReadsManyFilesThroughTheIndex) {
  write_two();
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ(weights->files().size(), 2U);
  const auto y = weights->find("y");
  ASSERT_TRUE(y);
  EXPECT_EQ(weights->files()[(*y)->file].filename(), "b.safetensors");
  EXPECT_EQ(read_all(*weights, **y, 2, 4), counted_bytes(6).substr(2));
}

TEST_F(Checkpoint, TakesTheSingleFileFirst) {
  write_two();
  write_single();
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights);
  EXPECT_FALSE(weights->contains("x"));
}

TEST_F(Checkpoint, FollowsSymbolicLinksAsTheHubCacheHasThem) {
  write_single();
  fs::create_directories(folder_ / "blobs");
  fs::rename(folder_ / "model.safetensors", folder_ / "blobs" / "0123abcd");
  fs::create_symlink("blobs/0123abcd", folder_ / "model.safetensors");
  EXPECT_TRUE(checkpoint::open(folder_));
}

TEST_F(Checkpoint, ManyThreadsMayRead) {
  write_shard("model.safetensors", {{"w", tensor_entry("U8", {1 << 20}, 0, 1 << 20)}}, 1 << 20);
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights);
  const tensor_info* w = weights->find("w").value();
  const std::string expected = counted_bytes(1 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t at = std::uint64_t(t); at + 5000 < w->bytes; at += 9973) {
        EXPECT_EQ(read_all(*weights, *w, at, 5000), expected.substr(at, 5000));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(Checkpoint, NamesTheNearestTensor) {
  write_single();
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights);
  const auto missing = weights->find("model.layer.0.proj.weights");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, base::error_code::not_found);
  EXPECT_THAT(missing.error().message,
              AllOf(HasSubstr(folder_.string()), HasSubstr("no tensor \"model.layer.0.proj."),
                    HasSubstr("the nearest is \"model.layers.0.proj.weight\"")));
  const auto far = weights->find("lm_head.weight");
  ASSERT_FALSE(far);
  EXPECT_THAT(far.error().message, Not(HasSubstr("nearest")));
}

TEST_F(Checkpoint, RefusesReadsOutsideTheTensor) {
  write_single();
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights);
  const tensor_info* norm = weights->find("model.norm.weight").value();
  std::vector<std::byte> out(16);
  for (const std::uint64_t offset : {std::uint64_t{1}, std::uint64_t{17}, ~std::uint64_t{0}}) {
    const auto done = weights->read(*norm, offset, out);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, base::error_code::out_of_range);
    EXPECT_THAT(done.error().message, HasSubstr("model.norm.weight"));
  }
}

TEST_F(Checkpoint, RefusesToReadMoreThanFourDimensions) {
  write_shard("model.safetensors", {{"w", tensor_entry("U8", {1, 1, 1, 1, 2}, 0, 2)}}, 2);
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights) << weights.error().message;
  const auto found = weights->find("w");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, base::error_code::unimplemented);
  EXPECT_THAT(found.error().message, HasSubstr("5 dimensions, at most 4"));
}

TEST_F(Checkpoint, ReportsAFileThatShrankAfterItWasOpened) {
  write_single();
  const auto weights = checkpoint::open(folder_);
  ASSERT_TRUE(weights);
  fs::resize_file(folder_ / "model.safetensors", fs::file_size(folder_ / "model.safetensors") - 3);
  const tensor_info* proj = weights->find("model.layers.0.proj.weight").value();
  std::vector<std::byte> out(12);
  const auto done = weights->read(*proj, 0, out);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, base::error_code::data_loss);
  EXPECT_THAT(done.error().message,
              AllOf(HasSubstr("model.safetensors"), HasSubstr("tensor \"model.layers.0.proj"),
                    HasSubstr("3 bytes too early")));
}

TEST_F(Checkpoint, RefusesTruncatedFilesAtEveryLength) {
  write_single();
  std::ifstream in(folder_ / "model.safetensors", std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write("model.safetensors", whole.substr(0, size));
    EXPECT_THAT(refusal(base::error_code::data_loss),
                AllOf(HasSubstr("model.safetensors"), HasSubstr("fetch it again")))
        << size;
  }
  write("model.safetensors", whole + "x");
  EXPECT_THAT(refusal(invalid), HasSubstr("bytes that belong to no tensor"));
}

TEST_F(Checkpoint, RefusesFilesThatAreNotSafetensors) {
  write("model.safetensors", "GGUF-but-not-really and some more bytes");
  EXPECT_THAT(refusal(invalid), HasSubstr("is it a safetensors file?"));
  write("model.safetensors", safetensors_bytes("[1,2]", ""));
  EXPECT_THAT(refusal(invalid), HasSubstr("does not begin with {"));
}

TEST_F(Checkpoint, SaysWhatIsMissing) {
  EXPECT_THAT(refusal(base::error_code::not_found), HasSubstr("neither model.safetensors nor"));
  write("pytorch_model.bin", "");
  EXPECT_THAT(refusal(base::error_code::not_found), HasSubstr("convert it to safetensors"));
  folder_ /= "none";
  EXPECT_THAT(refusal(base::error_code::not_found), HasSubstr("no such folder"));
  folder_ = folder_.parent_path();
  write_two();
  fs::remove(folder_ / "b.safetensors");
  EXPECT_THAT(refusal(base::error_code::not_found), HasSubstr("b.safetensors: cannot open"));
}

TEST_F(Checkpoint, RefusesWhatIsNotARegularFile) {
  fs::create_directories(folder_ / "model.safetensors");
  EXPECT_THAT(refusal(invalid), HasSubstr("not a regular file"));
  fs::remove(folder_ / "model.safetensors");
  ASSERT_EQ(::mkfifo((folder_ / "model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(refusal(invalid), HasSubstr("not a regular file"));  // and does not wait for a writer
  fs::remove(folder_ / "model.safetensors");
  fs::create_symlink("/dev/zero", folder_ / "model.safetensors");
  EXPECT_THAT(refusal(invalid), HasSubstr("not a regular file"));
}

TEST_F(Checkpoint, RefusesIndexesThatLeadOutOfTheFolder) {
  const auto names = {"../a.safetensors",
                      "/etc/a.safetensors",
                      "sub/a.safetensors",
                      "..",
                      ".safetensors",
                      "a\\b.safetensors",
                      "",
                      "a.bin",
                      "a\n.safetensors"};
  for (const std::string name : names) {
    write_index({{"x", name}});
    EXPECT_THAT(refusal(invalid), HasSubstr("plain name")) << name;
  }
  write_index({{"x", std::string(300, 'a') + ".safetensors"}});
  EXPECT_THAT(refusal(invalid), HasSubstr("plain name"));
}

TEST_F(Checkpoint, RefusesMalformedIndexes) {
  const auto with_text = [&](const std::string& text) {
    write("model.safetensors.index.json", text);
    return refusal(invalid);
  };
  EXPECT_THAT(with_text("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(with_text("3"), HasSubstr("not a JSON object"));
  EXPECT_THAT(with_text("{}"), HasSubstr("no weight_map"));
  EXPECT_THAT(with_text(R"({"weight_map":{}})"), HasSubstr("weight_map is empty"));
  EXPECT_THAT(with_text(R"({"weight_map":[]})"), HasSubstr("weight_map is not an object"));
  EXPECT_THAT(with_text(R"({"weight_map":3})"), HasSubstr("weight_map is not an object"));
  EXPECT_THAT(with_text(R"({"weight_map":{"x":3}})"), HasSubstr("give a file name"));
  EXPECT_THAT(with_text(R"({"weight_map":{"x":["a.safetensors"]}})"),
              HasSubstr("give a file name"));
  EXPECT_THAT(with_text(R"({"weight_map":{"x":"a.safetensors","x":"a.safetensors"}})"),
              HasSubstr("tensor \"x\" twice"));
  EXPECT_THAT(with_text(R"({"weight_map":{"x":"a.safetensors"},"weight_map":{}})"),
              HasSubstr("weight_map twice"));
  EXPECT_THAT(with_text(R"({"metadata":)" + std::string(70, '[')), HasSubstr("deeper than 64"));
  EXPECT_THAT(with_text(R"({"weight_map":{")" + std::string(513, 'n') + R"(":"a.safetensors"}})"),
              HasSubstr("a tensor name of 513 bytes"));
  EXPECT_THAT(with_text("{\"weight_map\""), HasSubstr("not valid JSON"));
}

TEST_F(Checkpoint, RefusesMoreFilesOrTensorsThanAllowed) {
  json files = json::object();
  for (std::size_t i = 0; i <= checkpoint_limits::files_max; ++i) {
    files[fmt::format("t{}", i)] = fmt::format("{}.safetensors", i);
  }
  write_index(files);
  EXPECT_THAT(refusal(invalid), HasSubstr("more than 10000 files"));
  std::string many = R"({"weight_map":{)";
  for (std::size_t i = 0; i <= checkpoint_limits::tensors_max; ++i) {
    if (i > 0) many += ',';
    many += fmt::format(R"("{}":"a.safetensors")", i);
  }
  write("model.safetensors.index.json", many + "}}");
  EXPECT_THAT(refusal(invalid), HasSubstr("more than 100000 tensors"));
  fs::resize_file(folder_ / "model.safetensors.index.json", checkpoint_limits::index_bytes_max + 1);
  EXPECT_THAT(refusal(invalid), HasSubstr("at most 67108864 are read"));
}

TEST_F(Checkpoint, RefusesAnIndexThatContradictsItsFiles) {
  write_two();
  write_index({{"x", "a.safetensors"}, {"y", "a.safetensors"}});
  EXPECT_THAT(refusal(invalid), AllOf(HasSubstr("\"y\" is in"), HasSubstr("does not have it")));
  write_index({{"x", "b.safetensors"}, {"y", "a.safetensors"}});
  EXPECT_THAT(refusal(invalid), HasSubstr("does not have it"));
  write_shard("b.safetensors", {{"x", tensor_entry("U8", {1}, 0, 1)}}, 1);
  write_index({{"x", "a.safetensors"}, {"y", "b.safetensors"}});
  EXPECT_THAT(refusal(invalid), HasSubstr("tensor \"x\" is in two files"));
}

TEST(CheckpointFile, GoesOnAfterInterruptsAndShortReads) {
  const std::string content = counted_bytes(1000);
  int calls = 0;
  const read_at_function read_at = [&](std::byte* to, std::size_t count, std::uint64_t from) {
    if (++calls % 3 == 0) {
      errno = EINTR;
      return std::int64_t{-1};
    }
    const std::size_t some = std::min<std::size_t>(count, 7);
    std::memcpy(to, content.data() + from, some);
    return static_cast<std::int64_t>(some);
  };
  std::string out(900, '?');
  const auto done = read_fully(read_at, 50, std::as_writable_bytes(std::span(out)), "f");
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(out, content.substr(50, 900));
}

TEST(CheckpointFile, ReportsWhereTheDiskFailed) {
  const read_at_function read_at = [&](std::byte*, std::size_t count, std::uint64_t from) {
    if (from >= 20) {
      errno = EIO;
      return std::int64_t{-1};
    }
    return static_cast<std::int64_t>(std::min<std::size_t>(count, 10));
  };
  std::vector<std::byte> out(100);
  const auto done = read_fully(read_at, 0, out, "dir/f: tensor \"w\"");
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, base::error_code::data_loss);
  EXPECT_THAT(done.error().message,
              AllOf(HasSubstr("dir/f: tensor \"w\""), HasSubstr("80 bytes at offset 20"),
                    HasSubstr("Input/output error")));
}

}  // namespace
}  // namespace troupe::models
