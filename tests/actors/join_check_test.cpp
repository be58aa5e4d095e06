#include "actors/gang/join_check.hpp"

#include <gmock/gmock.h>

#include <functional>

#include "tests/actors/machine_case.hpp"

namespace troupe::actors {
namespace {

using testing::HasSubstr;

join_rules rules() { return {.leader = description(0), .world_size = 2}; }

struct difference {
  const char* field;
  std::function<void(schemas::join_request&)> change;
  const char* line;
};

TEST(JoinCheck, TakesARankThatIsEqual) {
  EXPECT_EQ(why_refused(description(1), rules()), std::nullopt);
  EXPECT_EQ(why_refused(description(0), rules()), std::nullopt);
}

TEST(JoinCheck, NamesTheRankAndTheFieldThatDiffers) {
  using request = schemas::join_request;
  const std::vector<difference> table = {
      {"protocol", [](request& r) { r.protocol = 2; },
       "rank 1 (node-1) differs in protocol version: 2, the leader has 1; run the same binary"},
      {"build", [](request& r) { r.build_id = "build-b"; },
       "rank 1 (node-1) differs in build: build-b, the leader has build-a; run the same binary"},
      {"tp", [](request& r) { r.layout.tensor_parallel_size = 4; },
       "tensor_parallel_size: 4, the leader has 2; give every node the same flags"},
      {"pp", [](request& r) { r.layout.pipeline_parallel_size = 4; },
       "pipeline_parallel_size: 4, the leader has 1"},
      {"len", [](request& r) { r.layout.max_model_len = 8192; },
       "rank 1 (node-1) differs in max_model_len: 8192, the leader has 4096"},
      {"seqs", [](request& r) { r.layout.max_num_seqs = 8; }, "max_num_seqs: 8, the leader has 16"},
      {"batched", [](request& r) { r.layout.max_num_batched_tokens = 8; },
       "max_num_batched_tokens: 8, the leader has 512"},
      {"blocks", [](request& r) { r.layout.kv_blocks = 8; }, "kv_blocks: 8, the leader has 100"},
      {"block", [](request& r) { r.layout.block_size = 8; }, "block_size: 8, the leader has 16"},
      {"dtype", [](request& r) { r.layout.weights_dtype = "int8"; },
       "dtype: int8, the leader has bfloat16"},
      {"kv dtype", [](request& r) { r.layout.kv_cache_dtype = "int8"; },
       "kv_cache_dtype: int8, the leader has bfloat16"},
      {"plane", [](request& r) { r.layout.data_plane = "ucx"; },
       "data_plane: ucx, the leader has tls"},
      {"model", [](request& r) { r.model_description_digest[0] = 0xAB; },
       "model: ab020300, the leader has 01020300 (digest); give every node the same model"},
      {"model, end", [](request& r) { r.model_description_digest[31] = 1; }, "model"},
      {"kernels", [](request& r) { r.kernel_version = 9; },
       "kernel version: 9, the leader has 1; run the same binary"},
  };
  for (const difference& row : table) {
    schemas::join_request asks = description(1);
    row.change(asks);
    const auto reason = why_refused(asks, rules());
    ASSERT_TRUE(reason) << row.field;
    EXPECT_THAT(*reason, HasSubstr(row.line));
    EXPECT_THAT(*reason, HasSubstr("rank 1 (node-1)"));
  }
}

TEST(JoinCheck, NamesTheFirstDifferenceOnly) {
  schemas::join_request asks = description(1);
  asks.layout.max_model_len = 1;
  asks.layout.block_size = 1;
  EXPECT_EQ(why_refused(asks, rules())->find("block_size"), std::string::npos);
}

TEST(JoinCheck, RefusesRanksOutsideTheGang) {
  for (const int rank : {-1, 2, 1000}) {
    EXPECT_THAT(why_refused(description(rank), rules()).value_or(""),
                HasSubstr("is not in a gang of 2 ranks; check --nnodes"));
  }
}

TEST(JoinCheck, NamesFromTheWireArePrintableAndShort) {
  schemas::join_request asks = description(5);
  asks.node = "evil\n\x1b[31m" + std::string(500, 'x');
  const std::string reason = why_refused(asks, rules()).value_or("");
  EXPECT_EQ(reason.find('\n'), std::string::npos);
  EXPECT_EQ(reason.find('\x1b'), std::string::npos);
  EXPECT_LT(reason.size(), 300U);
}

TEST(JoinCheck, CommonPathsKeepTheOrderOfTheFirst) {
  using paths = std::vector<std::string>;
  EXPECT_EQ(common_paths(paths{"a", "b", "c"}, paths{"c", "a"}), (paths{"a", "c"}));
  EXPECT_EQ(common_paths(paths{"a"}, paths{"b"}), paths{});
}

TEST(JoinCheck, TheLineForNoCommonPathNamesBoth) {
  EXPECT_EQ(no_common_path(description(1), std::vector<std::string>{"neon", "sve"}),
            "rank 1 (node-1) offers none of the gang's instruction paths neon, sve: it offers "
            "amx_bf16, avx512, avx2; give every node the same --numerics, or none");
}

TEST(JoinCheck, TheLineForNoCommonPathCutsAndCleansWhatTheRankSays) {
  schemas::join_request asks = description(1);
  asks.instruction_paths = {"\n" + std::string(1000, 'x')};
  EXPECT_EQ(no_common_path(asks, std::vector<std::string>{"avx2"}),
            "rank 1 (node-1) offers none of the gang's instruction paths avx2: it offers ?" +
                std::string(119, 'x') + "; give every node the same --numerics, or none");
}

}  // namespace
}  // namespace troupe::actors
