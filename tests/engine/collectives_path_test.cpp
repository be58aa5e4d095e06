#include "engine/collectives_path.hpp"

#include <gtest/gtest.h>

namespace troupe::engine {
namespace {

device_offer offer(std::string_view host, std::string_view address,
                   device_collectives choice = device_collectives::automatic) {
  return {.choice = choice,
          .available = 1,
          .host = offer_text(host),
          .address = offer_text(address),
          .library = offer_text("NCCL 2.28.9")};
}

collectives_path path_of(const std::vector<device_offer>& offers) {
  auto path = choose_path(offers);
  EXPECT_TRUE(path.has_value());
  return path ? *path : collectives_path{};
}

TEST(CollectivesPath, IsDirectWhereEachRankHasADeviceOfItsOwn) {
  EXPECT_TRUE(path_of({offer("a", "1"), offer("a", "2")}).direct);
}

TEST(CollectivesPath, GoesThroughTheHostWhereTwoRanksShareADevice) {
  const auto path = path_of({offer("a", "1"), offer("a", "2"), offer("a", "1")});
  EXPECT_FALSE(path.direct);
  EXPECT_EQ(path.why, "ranks 0 and 2 of the group share the device 1");
}

TEST(CollectivesPath, TakesOneAddressOnTwoHostsForTwoDevices) {
  constexpr auto nccl = device_collectives::nccl;
  EXPECT_TRUE(path_of({offer("a", "1", nccl), offer("b", "1", nccl)}).direct);
}

TEST(CollectivesPath, LeavesAHostOnlyWhereAllRanksAskForIt) {
  const auto path = path_of({offer("a", "1"), offer("b", "1")});
  EXPECT_FALSE(path.direct);
  EXPECT_NE(path.why.find("only when asked for"), std::string::npos) << path.why;
  EXPECT_FALSE(choose_path(std::vector{offer("a", "1", device_collectives::nccl), offer("b", "1")})
                   .has_value());
}

TEST(CollectivesPath, GoesThroughTheHostWhereARankIsToldTo) {
  EXPECT_FALSE(path_of({offer("a", "1"), offer("a", "2", device_collectives::host)}).direct);
}

TEST(CollectivesPath, SaysWhatIsMissing) {
  device_offer without = offer("a", "2");
  without.available = 0;
  without.library = offer_text("no NCCL: not found");
  const auto path = path_of({offer("a", "1"), without});
  EXPECT_FALSE(path.direct);
  EXPECT_EQ(path.why, "rank 1 of the group: no NCCL: not found");
  device_offer older = offer("a", "2");
  older.library = offer_text("NCCL 2.27.7");
  EXPECT_FALSE(path_of({offer("a", "1"), older}).direct);
}

TEST(CollectivesPath, IsAnErrorWhereNcclWasAskedForAndCannotBe) {
  const auto path =
      choose_path(std::vector{offer("a", "1", device_collectives::nccl), offer("a", "1")});
  ASSERT_FALSE(path.has_value());
  EXPECT_EQ(path.error().code, base::error_code::failed_precondition);
  EXPECT_NE(path.error().message.find("share the device"), std::string::npos);
}

TEST(CollectivesPath, CutsWhatAPeerSendsAtItsBound) {
  const std::string longer(500, 'x');
  device_offer hostile = offer("a", "1");
  hostile.host.fill('h');  // no zero at its end
  EXPECT_EQ(offer_text(hostile.host).size(), device_offer::text_bytes_max);
  EXPECT_EQ(offer_text(offer_text(longer)).size(), device_offer::text_bytes_max);
  EXPECT_FALSE(path_of({hostile, offer("a", "1")}).direct);
}

}  // namespace
}  // namespace troupe::engine
