#include "models/weight_digest.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "models/registry.hpp"
#include "models/weight_reader.hpp"

namespace troupe::models {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

template <class T>
T must(base::result<T> of) {
  if (!of) throw std::runtime_error(of.error().message);
  return std::move(*of);
}

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A copy of a golden model that a test may change, and a folder for what is kept of it.
class model_copy {
 public:
  explicit model_copy(const std::string& name) {
    std::string pattern = (fs::temp_directory_path() / "troupe-digest-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    root_ = pattern;
    fs::copy(fs::path(TROUPE_SOURCE_DIR) / "tests/golden/models" / name, folder(),
             fs::copy_options::recursive);
    config_ = must(read_config(folder()));
    open();
  }
  model_copy(const model_copy&) = delete;
  model_copy& operator=(const model_copy&) = delete;
  ~model_copy() {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  void open() { files_ = std::make_unique<checkpoint>(must(checkpoint::open(folder()))); }
  [[nodiscard]] fs::path folder() const { return root_ / "model"; }
  [[nodiscard]] fs::path kept() const { return root_ / "state" / "digests"; }
  [[nodiscard]] const checkpoint& files() const { return *files_; }
  [[nodiscard]] const model_config& config() const { return config_; }
  [[nodiscard]] bool has(placement where) const {
    return check_placement(config_, where).has_value();
  }

  // Flips a bit of a byte of a tensor in place; `unseen`: the file's times stay as they were.
  void flip(const tensor_info& tensor, std::uint64_t byte, bool unseen = false) const {
    const fs::path& path = files_->files()[tensor.file];
    struct stat before {};
    ASSERT_EQ(::stat(path.c_str(), &before), 0);
    {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      const auto at = static_cast<std::streamoff>(tensor.offset + byte);
      file.seekg(at);
      const int value = file.get();
      file.seekp(at);
      file.put(static_cast<char>(value ^ 4));
    }
    const timespec times[2] = {before.st_atim, before.st_mtim};
    if (unseen) {
      ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    }
  }

 private:
  fs::path root_;
  model_config config_;
  std::unique_ptr<checkpoint> files_;
};

struct digesting {
  placement where = {};
  bool whole = false;
  fs::path kept = {};
  int threads = 3;
};

std::unique_ptr<weight_digest> start(const model_copy& model, const digesting& how) {
  return must(weight_digest::make({.files = &model.files(),
                                   .config = model.config(),
                                   .where = how.where,
                                   .whole = how.whole,
                                   .cache_folder = how.kept,
                                   .batch_bytes = 5000}));
}

// Loads a rank's share as a rank does and digests it on the way.
std::unique_ptr<weight_digest> load_and_digest(const model_copy& model, const digesting& how) {
  auto digest = start(model, how);
  kernels::thread_pool pool({.threads = how.threads});
  weight_reader reader(
      {.files = &model.files(),
       .type = kernels::dtype::bfloat16,
       .pool = &pool,
       .progress = {},
       .after_part = [&](const matrix_part& part) { return digest->packed(part.name, pool); }});
  must(load({reader, model.config(), how.where}));
  if (const auto done = digest->finish(pool, {}); !done) {
    throw std::runtime_error(done.error().message);
  }
  return digest;
}

std::vector<placement> placements(const model_copy& model) {
  std::vector<placement> all;
  for (const int tp : {1, 2, 4, 8}) {
    for (const int pp : {1, 2}) {
      for (int rank = 0; rank < tp * pp; ++rank) {
        const placement where{
            .tp_rank = rank % tp, .tp_size = tp, .pp_rank = rank / tp, .pp_size = pp};
        if (model.has(where)) all.push_back(where);
      }
    }
  }
  return all;
}

bool contains(const weight_leaf& leaf, const tensor_info& tensor, std::uint64_t byte) {
  const auto element = static_cast<std::int64_t>(byte / size_of(tensor.dtype));
  return leaf.tensor->name == tensor.name && leaf.outputs.contains(element / leaf.all_inputs) &&
         leaf.inputs.contains(element % leaf.all_inputs);
}

// 5, 8, 10 and 14 heads; one and several files; tied and not; biases; grouped KV heads.
class WeightDigest : public testing::TestWithParam<const char*> {
 protected:
  model_copy model_{GetParam()};
};

TEST_P(WeightDigest, IsTheSameWhateverTheSizes) {
  const auto whole = load_and_digest(model_, {.whole = true});
  const std::size_t leaves = whole->known().size();
  std::map<std::pair<int, int>, leaf_digests> gangs;
  std::set<base::digest> shares;
  for (const placement where : placements(model_)) {
    SCOPED_TRACE(testing::Message() << "tp " << where.tp_rank << " of " << where.tp_size << ", pp "
                                    << where.pp_rank << " of " << where.pp_size);
    const auto rank = load_and_digest(model_, {.where = where});
    EXPECT_EQ(must(rank->share(where)), must(whole->share(where)));
    shares.insert(must(rank->share(where)));
    leaf_digests& gang = gangs[{where.tp_size, where.pp_size}];
    gang.resize(leaves);
    ASSERT_EQ(rank->known().size(), leaves);
    for (std::size_t i = 0; i < leaves; ++i) {
      if (rank->known()[i]) gang[i] = rank->known()[i];
    }
  }
  EXPECT_GE(gangs.size(), 6U);
  for (const auto& [sizes, gang] : gangs) {
    EXPECT_TRUE(gang == whole->known()) << "tp " << sizes.first << ", pp " << sizes.second;
  }
  EXPECT_GT(shares.size(), gangs.size()) << "shares do not differ";
  EXPECT_EQ(whole->root(), must(whole->share({})));
}

TEST_P(WeightDigest, HashesTheRowsOfEachRunAsTheyAreInTheFile) {
  const auto whole = load_and_digest(model_, {.whole = true});
  std::string list = "troupe weights 1\n";
  std::map<std::uint32_t, std::string> files;
  for (std::size_t i = 0; i < model_.files().files().size(); ++i) {
    files[static_cast<std::uint32_t>(i)] = bytes_of(model_.files().files()[i]);
  }
  for (std::size_t i = 0; i < whole->known().size(); ++i) {
    const weight_leaf& leaf = whole->leaves().leaves[i];
    const auto element = static_cast<std::int64_t>(size_of(leaf.tensor->dtype));
    std::string rectangle;
    for (std::int64_t row = leaf.outputs.begin; row < leaf.outputs.end; ++row) {
      const auto at = (row * leaf.all_inputs + leaf.inputs.begin) * element;
      rectangle +=
          files[leaf.tensor->file].substr(static_cast<std::size_t>(at) + leaf.tensor->offset,
                                          static_cast<std::size_t>(leaf.inputs.size() * element));
    }
    ASSERT_EQ(rectangle.size(), leaf.bytes());
    EXPECT_EQ(*whole->known()[i], base::sha256_of(rectangle))
        << leaf.tensor->name << " run " << leaf.run;
    const std::string& name = leaf.tensor->name;
    list += std::to_string(name.size()) + ":" + name + " " + std::to_string(leaf.run) + " ";
    list.append(whole->known()[i]->begin(), whole->known()[i]->end());
  }
  EXPECT_EQ(whole->root(), base::sha256_of(list));
}

TEST_P(WeightDigest, OneFlippedByteChangesItsLeafTheRootAndTheSharesThatHaveIt) {
  constexpr std::uint64_t seed = 20261121;
  std::mt19937_64 random(seed);
  const auto before = load_and_digest(model_, {.whole = true});
  const std::vector<placement> all = placements(model_);
  for (const tensor_info& tensor : model_.files().tensors()) {
    const std::uint64_t byte = random() % tensor.bytes;
    SCOPED_TRACE(testing::Message() << tensor.name << " byte " << byte << ", seed " << seed);
    model_.flip(tensor, byte);
    const auto after = load_and_digest(model_, {.whole = true});
    int changed = 0;
    for (std::size_t i = 0; i < after->known().size(); ++i) {
      const bool differs = after->known()[i] != before->known()[i];
      changed += differs ? 1 : 0;
      EXPECT_EQ(differs, contains(after->leaves().leaves[i], tensor, byte)) << "leaf " << i;
    }
    // A KV head that two runs read beside another one is in both of their rectangles.
    const bool shared = tensor.name.find("k_proj") != std::string::npos ||
                        tensor.name.find("v_proj") != std::string::npos;
    EXPECT_GE(changed, 1);
    EXPECT_LE(changed, shared ? 2 : 1);
    EXPECT_NE(after->root(), before->root());
    const placement where = all[random() % all.size()];
    const auto own = must(leaves_of(after->leaves(), model_.config(), where));
    const bool has = std::ranges::any_of(own, [&](std::uint32_t leaf) {
      return contains(after->leaves().leaves[leaf], tensor, byte);
    });
    EXPECT_EQ(must(after->share(where)) != must(before->share(where)), has);
    model_.flip(tensor, byte);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, WeightDigest,
                         testing::Values("llama_5_heads", "qwen3_tied", "llama_biases",
                                         "llama_sharded", "llama_14_heads_2_kv"),
                         [](const testing::TestParamInfo<const char*>& model) {
                           return std::string(model.param);
                         });

class KeptDigest : public testing::Test {
 protected:
  [[nodiscard]] std::unique_ptr<weight_digest> digest() const {
    return load_and_digest(model_, {.whole = true, .kept = model_.kept()});
  }
  [[nodiscard]] const tensor_info& some_tensor() const { return model_.files().tensors().front(); }

  model_copy model_{"qwen3_tied"};
};

// The changed byte shows that what is known is not read again: its file looks as it did.
TEST_F(KeptDigest, IsNotComputedAgain) {
  const auto first = digest();
  EXPECT_GT(first->hashed_bytes(), 0U);
  EXPECT_EQ(first->cache_problem(), "");
  model_.flip(some_tensor(), 3, true);
  const auto again = digest();
  EXPECT_EQ(again->hashed_bytes(), 0U);
  EXPECT_EQ(again->root(), first->root());
}

TEST_F(KeptDigest, OfOneSizeServesAnother) {
  std::uint64_t hashed = 0;
  for (const int rank : {0, 1}) {
    const placement where{.tp_rank = rank, .tp_size = 2};
    hashed += load_and_digest(model_, {.where = where, .kept = model_.kept()})->hashed_bytes();
  }
  EXPECT_GT(hashed, 0U);
  const placement other{.tp_rank = 3, .tp_size = 4, .pp_rank = 1, .pp_size = 2};
  EXPECT_EQ(load_and_digest(model_, {.where = other, .kept = model_.kept()})->hashed_bytes(), 0U);
  EXPECT_EQ(digest()->hashed_bytes(), 0U);
}

// On one host the leader takes over what the others have hashed.
TEST_F(KeptDigest, OfOtherRanksIsLearntWhileTheLeaderStillHashes) {
  const placement zero{.tp_rank = 0, .tp_size = 2};
  const placement one{.tp_rank = 1, .tp_size = 2};
  const auto leader = start(model_, {.where = zero, .whole = true, .kept = model_.kept()});
  EXPECT_GT(leader->bytes_of_others(), 0U);
  load_and_digest(model_, {.where = one, .kept = model_.kept()});
  kernels::thread_pool pool({.threads = 1});
  std::uint64_t told = 1;
  ASSERT_TRUE(leader->finish(pool, [&](std::uint64_t bytes) { told = bytes; }).has_value());
  EXPECT_EQ(told, 0U);
  EXPECT_EQ(leader->root(), load_and_digest(model_, {.whole = true})->root());
}

TEST_F(KeptDigest, OfAChangedFileIsComputedAgain) {
  const auto first = digest();
  const std::uint64_t all = first->hashed_bytes();
  model_.flip(some_tensor(), 3);
  const fs::path path = model_.files().files().front();
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::nanoseconds(1));
  auto again = digest();
  EXPECT_EQ(again->hashed_bytes(), all);
  EXPECT_NE(again->root(), first->root());
  // Another file of the same bytes, size and time is another file.
  const auto written = fs::last_write_time(path);
  fs::rename(path, path.string() + ".old");
  fs::copy_file(path.string() + ".old", path);
  fs::last_write_time(path, written);
  model_.open();
  again = digest();
  EXPECT_EQ(again->hashed_bytes(), all);
}

TEST_F(KeptDigest, ReadsTheWeightsWhereTheFilesAreDamaged) {
  const auto first = digest();
  for (const auto& entry : fs::directory_iterator(model_.kept())) {
    fs::resize_file(entry.path(), fs::file_size(entry.path()) / 2);
  }
  const auto again = digest();
  EXPECT_EQ(again->hashed_bytes(), first->hashed_bytes());
  EXPECT_EQ(again->root(), first->root());
  EXPECT_EQ(digest()->hashed_bytes(), 0U) << "the damaged file was not replaced";
}

TEST_F(KeptDigest, SaysWhyItCannotBeKeptAndGoesOn) {
  std::ofstream(model_.kept().parent_path()) << "a file where the folder should be";
  const auto made = digest();
  EXPECT_THAT(made->cache_problem(), HasSubstr(model_.kept().string()));
  EXPECT_EQ(made->root(), load_and_digest(model_, {.whole = true})->root());
}

TEST_F(KeptDigest, IsRefusedWhereAFileChangesUnderTheLoad) {
  const auto digest = start(model_, {.kept = model_.kept()});
  const fs::path path = model_.files().files().front();
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::seconds(1));
  kernels::thread_pool pool({.threads = 1});
  const auto done = digest->finish(pool, {});
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().code, base::error_code::data_loss);
  EXPECT_THAT(done.error().message, HasSubstr(path.string() + ": changed while it was loaded"));
  EXPECT_FALSE(fs::exists(model_.kept())) << "what may be of two minds was kept";
}

TEST_F(KeptDigest, NamesTheTensorOfAFileThatIsCutOff) {
  const auto digest = start(model_, {});
  const fs::path path = model_.files().files().front();
  fs::resize_file(path, fs::file_size(path) - 1);
  kernels::thread_pool pool({.threads = 2});
  const auto done = digest->finish(pool, {});
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().code, base::error_code::data_loss);
  EXPECT_THAT(done.error().message, HasSubstr(path.string() + ": tensor "));
}

TEST_F(KeptDigest, OfALinkedModelIsThatOfItsFilesAndIsNotKept) {
  std::vector<std::string> contents;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(model_.folder())) {
    names.push_back(entry.path().filename().string());
    contents.push_back(bytes_of(entry.path()));
  }
  std::vector<linked_file> linked;
  for (std::size_t i = 0; i < names.size(); ++i) {
    linked.push_back({names[i], std::as_bytes(std::span(contents[i]))});
  }
  const checkpoint files = must(checkpoint::open(model_folder("linked", linked)));
  const auto made = must(weight_digest::make({.files = &files,
                                              .config = model_.config(),
                                              .where = {},
                                              .whole = true,
                                              .cache_folder = model_.kept()}));
  kernels::thread_pool pool({.threads = 1});
  ASSERT_TRUE(made->finish(pool, {}).has_value());
  EXPECT_FALSE(fs::exists(model_.kept()));
  EXPECT_EQ(made->root(), digest()->root());
}

}  // namespace
}  // namespace troupe::models
