// The linked files are the committed ones, and are read as files on disk are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "models/checkpoint.hpp"
#include "models/checkpoint_file.hpp"
#include "models/config.hpp"
#include "models/demo/demo_folder.hpp"
#include "models/placement.hpp"
#include "models/text/chat_template.hpp"
#include "models/text/tokenizer.hpp"

namespace troupe::models {
namespace {

using testing::HasSubstr;

std::filesystem::path committed() {
  return std::filesystem::path(TROUPE_SOURCE_DIR) / "models/demo/files";
}

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(DemoFolder, HoldsEveryCommittedFileByteForByte) {
  const model_folder folder = demo_folder();
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(committed())) {
    const std::string name = entry.path().filename();
    const linked_file* linked = folder.find_linked(name);
    ASSERT_NE(linked, nullptr) << name << " is not linked: add it to linked_files.S";
    EXPECT_EQ(linked->text(), bytes_of(entry.path())) << name;
    ++files;
  }
  EXPECT_EQ(files, 5U);
}

TEST(DemoFolder, TakesAtMostTwelveMegabytes) {
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(committed())) {
    bytes += entry.file_size();
  }
  EXPECT_LE(bytes, 12'000'000U);
}

TEST(DemoFolder, DescribesTheModelThatIssueAndContractName) {
  const auto config = read_config(demo_folder());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->architecture, "Qwen3ForCausalLM");
  EXPECT_EQ(config->num_attention_heads, 8);
  EXPECT_EQ(config->num_key_value_heads, 4);
  EXPECT_EQ(config->max_position_embeddings, 4096);
  EXPECT_EQ(config->dtype, "bfloat16");
  for (const int size : {1, 2, 4, 8}) {
    EXPECT_TRUE(check_placement(*config, {.tp_rank = 0, .tp_size = size})) << size;
  }
}

TEST(DemoFolder, GivesTheSameTensorsAsTheFolderOnDisk) {
  const auto linked = checkpoint::open(demo_folder());
  const auto stored = checkpoint::open(committed());
  ASSERT_TRUE(linked) << linked.error().message;
  ASSERT_TRUE(stored) << stored.error().message;
  ASSERT_EQ(linked->tensors().size(), stored->tensors().size());
  for (std::size_t i = 0; i < stored->tensors().size(); ++i) {
    const tensor_info& ours = linked->tensors()[i];
    const tensor_info& theirs = stored->tensors()[i];
    ASSERT_EQ(ours.name, theirs.name);
    ASSERT_EQ(ours.bytes, theirs.bytes);
    // The middle half, so that offset and length count.
    std::vector<std::byte> a(ours.bytes / 2);
    std::vector<std::byte> b(ours.bytes / 2);
    ASSERT_TRUE(linked->read(ours, ours.bytes / 4, a));
    ASSERT_TRUE(stored->read(theirs, theirs.bytes / 4, b));
    EXPECT_EQ(a, b) << ours.name;
  }
}

TEST(DemoFolder, WritesChatsInChatMl) {
  const auto chat = text::chat_template::open(demo_folder());
  ASSERT_TRUE(chat) << chat.error().message;
  const auto prompt = chat->render(
      R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])",
      {.add_generation_prompt = true});
  ASSERT_TRUE(prompt) << prompt.error().message;
  EXPECT_EQ(*prompt,
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(DemoFolder, EncodesAnyTextAndBack) {
  const auto tokens = text::tokenizer::open(demo_folder());
  ASSERT_TRUE(tokens) << tokens.error().message;
  const std::string text = "What is a gang?\n\tports 8473-8488, naïve 日本語 \xF0\x9F\x8E\xAD";
  const auto ids = tokens->encode(text, {});
  ASSERT_TRUE(ids);
  EXPECT_EQ(tokens->decode(*ids, {}).value(), text);
  const auto end = tokens->token_to_id("<|im_end|>");
  ASSERT_TRUE(end);
  const auto config = read_config(demo_folder());
  EXPECT_THAT(config->eos_token_ids, testing::Contains(*end));
  EXPECT_LE(tokens->token_count(), config->vocab_size);
}

TEST(FindModel, MeansTheEmbeddedModelByDemoAndAFolderByAnythingElse) {
  EXPECT_TRUE(find_model("demo").is_linked());
  for (const char* path : {"./demo", "demo/", "Demo", "models/demo"}) {
    EXPECT_FALSE(find_model(path).is_linked()) << path;
    EXPECT_EQ(find_model(path).path(), path);
  }
}

TEST(LinkedFolder, NamesTheFileThatIsMissing) {
  const std::array<linked_file, 1> files = {{{"config.json", as_bytes("{}")}}};
  const model_folder folder("half a model", files);
  const auto weights = checkpoint::open(folder);
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().code, base::error_code::not_found);
  EXPECT_THAT(weights.error().message, HasSubstr("half a model"));
  const auto text = read_text_file(folder, "tokenizer.json", 100);
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, base::error_code::not_found);
  EXPECT_THAT(text.error().message, HasSubstr("half a model/tokenizer.json"));
  const auto tokens = text::tokenizer::open(folder);
  ASSERT_FALSE(tokens);
  EXPECT_EQ(tokens.error().code, base::error_code::not_found);
}

TEST(LinkedFolder, ReadsToItsEndAndNoFurther) {
  const std::array<linked_file, 1> files = {{{"a.txt", as_bytes("0123456789")}}};
  const model_folder folder("small", files);
  const auto opened = checkpoint_file::open(folder, "a.txt");
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->bytes(), 10U);
  std::array<std::byte, 4> out{};
  ASSERT_TRUE(opened->read(6, out, "a.txt"));
  EXPECT_EQ(static_cast<char>(out[0]), '6');
  EXPECT_EQ(static_cast<char>(out[3]), '9');
  for (const std::uint64_t offset : {7ULL, 10ULL, 11ULL, ~0ULL}) {
    const auto read = opened->read(offset, out, "a.txt");
    ASSERT_FALSE(read) << offset;
    EXPECT_EQ(read.error().code, base::error_code::data_loss) << offset;
  }
  EXPECT_FALSE(read_text_file(folder, "a.txt", 9));
  EXPECT_EQ(read_text_file(folder, "a.txt", 10).value(), "0123456789");
}

TEST(LinkedFolder, RefusesWeightsThatAreCutOff) {
  const std::string whole = bytes_of(committed() / "model.safetensors");
  const std::string_view cut = std::string_view(whole).substr(0, whole.size() - 1);
  const std::array<linked_file, 1> files = {{{"model.safetensors", as_bytes(cut)}}};
  const auto weights = checkpoint::open(model_folder("cut", files));
  ASSERT_FALSE(weights);
  EXPECT_THAT(weights.error().message, HasSubstr("cut/model.safetensors"));
}

}  // namespace
}  // namespace troupe::models
