// Every message comes back as it went, hostile bytes are refused, and the bytes of the wire are
// those of tests/golden/wire.
#include "schemas/codec.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>

#include "tests/schemas/messages.hpp"

namespace troupe::schemas {
namespace {

// Two messages are the same when they encode to the same bytes: encoding writes every field, and
// the golden bytes below hold the fields' values.
struct wire_case {
  std::string name;
  wire_bytes bytes;
  std::function<base::result<wire_bytes>(std::span<const std::uint8_t>)> again;
};

template <class Decode>
auto encode_again(Decode decode) {
  return [decode](std::span<const std::uint8_t> bytes) -> base::result<wire_bytes> {
    TROUPE_TRY(message, decode(bytes));
    return encode(message);
  };
}

std::vector<wire_case> all_cases() {
  std::vector<wire_case> cases;
  cases.push_back({"step_plan", encode(full_plan()), encode_again(decode_step_plan)});
  cases.push_back({"step_result", encode(full_result()), encode_again(decode_step_result)});
  cases.push_back({"following_changes", encode(full_following_changes()),
                   encode_again(decode_following_changes)});
  for (const auto& [name, message] : control_messages()) {
    cases.push_back({"control." + name, encode(message), encode_again(decode_control_message)});
  }
  for (const auto& [name, message] : supervisor_messages()) {
    cases.push_back(
        {"supervisor." + name, encode(message), encode_again(decode_supervisor_message)});
  }
  return cases;
}

// v1, v2 ...: a folder holds the messages that have changed since the one before.
constexpr int versions = 3;
std::filesystem::path golden(int version, const std::string& name) {
  return std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/golden/wire" /
         ("v" + std::to_string(version)) / (name + ".bin");
}
std::filesystem::path newest_golden(const std::string& name) {
  int version = versions;
  while (version > 1 && !std::filesystem::exists(golden(version, name))) --version;
  return golden(version, name);
}

wire_bytes read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(Wire, EveryMessageComesBackAsItWent) {
  for (const wire_case& each : all_cases()) {
    const auto again = each.again(each.bytes);
    ASSERT_TRUE(again) << each.name << ": " << again.error().message;
    EXPECT_EQ(*again, each.bytes) << each.name;
  }
}

// TROUPE_WRITE_GOLDEN=1 writes the newest version's files of messages that have changed or are new;
// it never changes one.
TEST(Wire, BytesAreThoseOfTheReleasedVersion) {
  for (const wire_case& each : all_cases()) {
    const auto path = golden(versions, each.name);
    const bool differs = read_file(newest_golden(each.name)) != each.bytes;
    if (differs && std::getenv("TROUPE_WRITE_GOLDEN") != nullptr &&
        !std::filesystem::exists(path)) {
      std::filesystem::create_directories(path.parent_path());
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(each.bytes.data()),
                 static_cast<std::streamsize>(each.bytes.size()));
    }
    EXPECT_EQ(read_file(newest_golden(each.name)), each.bytes) << each.name;
  }
}

// Fields that are new are then at their defaults.
TEST(Wire, MessagesOfEarlierVersionsAreStillRead) {
  for (const wire_case& each : all_cases()) {
    const wire_bytes first = read_file(golden(1, each.name));
    if (first.empty()) continue;  // a newer message
    const auto again = each.again(first);
    EXPECT_TRUE(again) << each.name << ": " << again.error().message;
  }
  const auto plan = decode_step_plan(read_file(golden(1, "step_plan")));
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->sequences.at(1).stored, 0);
  EXPECT_EQ(plan->sequences[1].sample->top_k, 40);
  EXPECT_FALSE(plan->sequences[1].sample->changes);
  EXPECT_TRUE(decode_step_result(read_file(golden(1, "step_result")))->tokens.at(1).allowed);
}

TEST(Wire, FieldsOfAPlanKeepTheirValues) {
  const auto plan = decode_step_plan(encode(full_plan()));
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->epoch, (base::epoch_id{0x0123456789ABCDEFU, 6}));
  ASSERT_EQ(plan->sequences.size(), 2U);
  EXPECT_FALSE(plan->sequences[0].sample);
  EXPECT_FALSE(plan->sequences[0].adapter_id);
  const planned_rows& rows = plan->sequences[1];
  ASSERT_TRUE(rows.sample);
  EXPECT_EQ(rows.sample->row.seed, 0xFEDCBA9876543210U);
  EXPECT_EQ(rows.sample->top_k, 40);
  EXPECT_EQ(rows.stored, 41);
  ASSERT_TRUE(rows.sample->changes);
  EXPECT_EQ(rows.sample->changes->bias[1].bias, -2.0F);
  EXPECT_EQ(rows.sample->changes->counts[1], (token_count{12, 3}));
  EXPECT_EQ(rows.sample->changes->allowed[1], 0x80000001U);
  EXPECT_EQ(rows.adapter_id, 0U);  // there, and zero
  EXPECT_EQ(rows.draft_token_ids, (std::vector<std::int32_t>{9, 10}));
  EXPECT_EQ(plan->model_id, 1U);
}

TEST(Wire, RefusesEveryTruncation) {
  for (const wire_case& each : all_cases()) {
    for (std::size_t length = 0; length < each.bytes.size(); ++length) {
      const auto cut = each.again(std::span(each.bytes).first(length));
      // A tail of defaults may be missing; what is read then must still encode.
      if (!cut) {
        EXPECT_EQ(cut.error().code, base::error_code::invalid_argument) << each.name;
      }
    }
    EXPECT_FALSE(each.again({})) << each.name;
  }
}

TEST(Wire, SurvivesMutatedBytes) {
  std::mt19937 random(20261121);
  for (const wire_case& each : all_cases()) {
    for (int round = 0; round < 2000; ++round) {
      wire_bytes bytes = each.bytes;
      const int flips = 1 + static_cast<int>(random() % 6);
      for (int flip = 0; flip < flips; ++flip) {
        bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
      }
      static_cast<void>(each.again(bytes));  // any result, no crash (the sanitizers watch)
    }
  }
}

TEST(Wire, RefusesALongerMessageThanItTakes) {
  const std::vector<std::uint8_t> long_bytes(wire_limits::supervisor_bytes_max + 8);
  EXPECT_FALSE(decode_supervisor_message(long_bytes));
}

TEST(Wire, RefusesValuesOutOfRange) {
  const auto refused = [](const std::function<void(planned_rows&)>& spoil) {
    step_plan plan = full_plan();
    spoil(plan.sequences[1]);
    return !decode_step_plan(encode(plan));
  };
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.first_position = -1; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.prompt_length = -1; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.token_ids.clear(); }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.sample->row.temperature = -1.0F; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.sample->top_p = 0.0F; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.sample->top_k = -1; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.sample->logprobs = -2; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.scored = {0, 1, {}}; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.scored = {0, 1, {1, 2}}; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.scored = {1, 1, {1}}; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.scored = {-1, 1, {1}}; }));
  EXPECT_TRUE(refused([](planned_rows& rows) { rows.scored = {0, -1, {1}}; }));
  EXPECT_FALSE(refused([](planned_rows& rows) { rows.scored = {0, 1, {1}}; }));
}

TEST(Wire, KeepsTextsOnOneLine) {
  const auto read = decode_supervisor_message(encode(supervisor_message{announce{"a\nb\x1b[31m"}}));
  ASSERT_TRUE(read);
  EXPECT_EQ(std::get<announce>(read->body).json, "a b [31m");
}

}  // namespace
}  // namespace troupe::schemas
