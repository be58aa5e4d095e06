// What reaches a UCX data plane and should not: addresses that are none, messages of other epochs,
// settings that cannot work.
#include "transport/ucx_wire.hpp"
#include "tests/transport/group_runner.hpp"
#include "transport/ucx_address.hpp"
#include "transport/ucx_data_plane.hpp"
#include "transport/ucx_worker.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>

namespace troupe::transport::testing {
namespace {

using base::error_code;
using ::testing::HasSubstr;

constexpr ucx_address_owner owner{.epoch = epoch, .rank = 3, .ucx_version = 1013};
const std::vector<std::uint8_t> ucx_bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

void expect_refused(std::span<const std::uint8_t> wrapped, const std::string& why,
                    ucx_address_owner expected = owner) {
  const auto unwrapped = unwrap_ucx_address(expected, wrapped);
  ASSERT_FALSE(unwrapped) << why;
  EXPECT_EQ(unwrapped.error().code, error_code::invalid_argument);
  EXPECT_THAT(unwrapped.error().message, HasSubstr(why));
  EXPECT_THAT(unwrapped.error().message, HasSubstr("rank " + std::to_string(expected.rank)));
}

TEST(UcxAddress, ComesBackWithZerosBehindIt) {
  const auto wrapped = wrap_ucx_address(owner, ucx_bytes).value();
  auto back = unwrap_ucx_address(owner, wrapped).value();
  ASSERT_EQ(back.size(), ucx_bytes.size() + ucx_address_slack_bytes);
  EXPECT_TRUE(std::equal(ucx_bytes.begin(), ucx_bytes.end(), back.begin()));
  EXPECT_EQ(std::count(back.begin() + 11, back.end(), 0), 65536);
}

TEST(UcxAddress, RefusesEveryTruncationAndEveryChangedBit) {
  const auto wrapped = wrap_ucx_address(owner, ucx_bytes).value();
  for (std::size_t length = 0; length < wrapped.size(); ++length) {
    expect_refused(std::span(wrapped).first(length), "");
  }
  for (std::size_t bit = 0; bit < 8 * wrapped.size(); ++bit) {
    auto changed = wrapped;
    changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1U << (bit % 8)));
    expect_refused(changed, "");
  }
  auto longer = wrapped;
  longer.push_back(0);
  expect_refused(longer, "damaged");
  expect_refused(std::vector<std::uint8_t>(data_plane_address_bytes_max + 1), "none");
}

TEST(UcxAddress, SaysWhoseItIsInstead) {
  const auto wrapped = wrap_ucx_address(owner, ucx_bytes).value();
  expect_refused(wrapped, "is that of rank 3",
                 {.epoch = epoch, .rank = 2, .ucx_version = owner.ucx_version});
  expect_refused(wrapped, "is of epoch abc/3",
                 {.epoch = {.incarnation = 0xabc, .number = 4}, .rank = 3, .ucx_version = 1013});
  expect_refused(wrapped, "is of UCX 1.13, this rank has 1.14",
                 {.epoch = epoch, .rank = 3, .ucx_version = 1014});
  const std::string other = "127.0.0.1:40000 and the fingerprint of a certificate";
  expect_refused(std::vector<std::uint8_t>(other.begin(), other.end()), "--data-plane ucx");
}

TEST(UcxAddress, RefusesToBeTooLong) {
  const auto wrapped =
      wrap_ucx_address(owner, std::vector<std::uint8_t>(data_plane_address_bytes_max));
  ASSERT_FALSE(wrapped);
  EXPECT_EQ(wrapped.error().code, error_code::internal);
}

TEST(UcxDataPlane, ConnectRefusesAddressesThatAreNone) {
  ucx_gang gang({.shape = {.tp_size = 2}});
  gang.addresses()[1].pop_back();
  const auto damaged = gang.plane(0).connect(gang.addresses(), std::chrono::seconds(5));
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, error_code::invalid_argument);
  EXPECT_THAT(damaged.error().message, HasSubstr("rank 1"));
  gang.addresses().pop_back();
  const auto too_few = gang.plane(1).connect(gang.addresses(), std::chrono::seconds(5));
  ASSERT_FALSE(too_few);
  EXPECT_EQ(too_few.error().code, error_code::invalid_argument);
}

TEST(UcxDataPlane, RefusesASeatThatIsNone) {
  prepare_ucx_for_tests();
  for (const int rank : {-1, 2}) {
    const auto plane = open_ucx({.epoch = epoch, .rank = rank, .shape = {.tp_size = 2}});
    ASSERT_FALSE(plane);
    EXPECT_EQ(plane.error().code, error_code::invalid_argument);
  }
}

// --- messages that no rank of this epoch has sent ---------------------------------------------

// Sends to a rank of a gang as something else on the network would that speaks UCX.
class stranger {
 public:
  explicit stranger(const data_plane_address& address, int rank)
      : worker_(std::move(ucx_worker::open(2).value())) {
    auto bytes = unwrap_ucx_address(
        {.epoch = epoch, .rank = rank, .ucx_version = worker_->ucx().version()}, address);
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
    params.address = reinterpret_cast<const ucp_address_t*>(bytes->data());
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    EXPECT_EQ(worker_->ucx().ep_create(worker_->handle(), &params, &endpoint_), UCS_OK);
  }

  // `done`: progresses until then.
  template <class Done>
  void send(std::span<const std::byte> header, std::span<const std::byte> bytes, Done done) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = bytes.size() > 100000 ? UCP_AM_SEND_FLAG_RNDV : UCP_AM_SEND_FLAG_EAGER;
    auto* const request =
        worker_->ucx().am_send_nbx(endpoint_, ucx_message_id, header.data(), header.size(),
                                   bytes.data(), bytes.size(), &param);
    ASSERT_FALSE(UCS_PTR_IS_ERR(request));
    while (!done()) worker_->ucx().worker_progress(worker_->handle());
    if (request == nullptr) return;
    while (worker_->ucx().request_check_status(request) == UCS_INPROGRESS) {
      worker_->ucx().worker_progress(worker_->handle());
    }
    worker_->ucx().request_free(request);
  }

 private:
  std::unique_ptr<ucx_worker> worker_;
  ucp_ep_h endpoint_ = nullptr;
};

ucx_header header_of(base::epoch_id of, std::uint32_t sequence) {
  return {.incarnation = of.incarnation,
          .epoch_number = of.number,
          .sequence = sequence,
          .number = 1,
          .source = 0};
}

// Rank 1 waits for rank 0 while a stranger writes; returns how its wait ended.
base::result<void> while_strangers_write(ucx_gang& gang,
                                         const std::function<void(stranger&)>& write) {
  base::result<void> ended;
  gang.run([&](int rank, rank_groups& groups) {
    std::vector<std::byte> bytes(8);
    if (rank == 1) {
      ended = groups.tp->receive(epoch, 0, bytes);
      return;
    }
    stranger other(gang.addresses()[1], 1);
    write(other);
    (void)groups.tp->send(epoch, 1, bytes);
  });
  return ended;
}

TEST(UcxDataPlane, MessagesOfAnotherEpochAreDroppedAndCounted) {
  within(std::chrono::seconds(60), [] {
    ucx_gang gang({.shape = {.tp_size = 2}});
    const auto stale = [&] { return gang.plane(1).counters().stale_messages; };
    const auto ended = while_strangers_write(gang, [&](stranger& other) {
      const base::epoch_id before{.incarnation = epoch.incarnation, .number = epoch.number - 1};
      const base::epoch_id foreign{.incarnation = epoch.incarnation + 1, .number = epoch.number};
      std::uint64_t expected = 0;
      for (const auto of : {before, foreign}) {
        for (const std::size_t count : {0UL, 8UL, 20000UL, 1000000UL}) {
          ++expected;
          const ucx_header header = header_of(of, 0);
          other.send(std::as_bytes(std::span(&header, 1)), std::vector<std::byte>(count),
                     [&] { return stale() == expected; });
        }
      }
      // No header, a longer one, one of this epoch from a rank that there is not, or from itself.
      other.send({}, std::vector<std::byte>(8), [&] { return stale() == expected + 1; });
      other.send(std::vector<std::byte>(48), {}, [&] { return stale() == expected + 2; });
      for (const std::uint8_t source : {std::uint8_t{2}, std::uint8_t{255}, std::uint8_t{1}}) {
        ucx_header header = header_of(epoch, 0);
        header.source = source;
        ++expected;
        other.send(std::as_bytes(std::span(&header, 1)), {},
                   [&] { return stale() == expected + 2; });
      }
    });
    TROUPE_EXPECT_OK(ended);
    EXPECT_EQ(stale(), 13U);
    EXPECT_EQ(gang.plane(0).counters().stale_messages, 0U);
  });
}

TEST(UcxDataPlane, MessagesOutOfTheirOrderEndTheCall) {
  for (const std::uint32_t sequence : {16U, 0xffffffffU}) {
    within(std::chrono::seconds(60), [sequence] {
      ucx_gang gang({.shape = {.tp_size = 2}});
      std::atomic<bool> over{false};
      base::result<void> ended;
      gang.run([&](int rank, rank_groups& groups) {
        std::vector<std::byte> bytes(8);
        if (rank == 1) {
          ended = groups.tp->receive(epoch, 0, bytes);
          over = true;
          return;
        }
        stranger other(gang.addresses()[1], 1);
        const ucx_header header = header_of(epoch, sequence);
        other.send(std::as_bytes(std::span(&header, 1)), bytes, [&] { return over.load(); });
      });
      ASSERT_FALSE(ended);
      EXPECT_EQ(ended.error().code, error_code::data_loss);
    });
  }
}

// --- settings ---------------------------------------------------------------------------------

// Sets or unsets a variable for one test.
class with_variable {
 public:
  with_variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    value != nullptr ? setenv(name, value, 1) : unsetenv(name);
  }
  with_variable(const with_variable&) = delete;
  with_variable& operator=(const with_variable&) = delete;
  ~with_variable() {
    before_ ? setenv(name_.c_str(), before_->c_str(), 1) : unsetenv(name_.c_str());
  }

 private:
  std::string name_;
  std::optional<std::string> before_;
};

TEST(UcxEnvironment, TakesTheDeviceOfAnAddress) {
  EXPECT_EQ(interface_of("127.0.0.1").value(), "lo");
  for (const char* none : {"", "localhost", "198.51.100.7", "300.0.0.1", "2001:db8::1"}) {
    const auto found = interface_of(none);
    ASSERT_FALSE(found) << none;
    EXPECT_EQ(found.error().code, error_code::invalid_argument);
  }
  const with_variable devices("UCX_NET_DEVICES", nullptr);
  const with_variable ports("UCX_TCP_PORT_RANGE", nullptr);
  ASSERT_TRUE(prepare_ucx_environment(
      {.local_address = "127.0.0.1", .port_first = 30000, .port_last = 30015}));
  EXPECT_STREQ(std::getenv("UCX_NET_DEVICES"), "lo");
  EXPECT_STREQ(std::getenv("UCX_TCP_PORT_RANGE"), "30000-30015");
  EXPECT_STREQ(std::getenv("UCX_LOG_FILE"), "stderr");
}

TEST(UcxEnvironment, LeavesWhatTheUserHasSet) {
  const with_variable devices("UCX_NET_DEVICES", "mlx5_0:1,lo");
  const with_variable level("UCX_LOG_LEVEL", "error");
  const with_variable zero_copy("UCX_ZCOPY_THRESH", nullptr);
  ASSERT_TRUE(prepare_ucx_environment({.interface = "lo"}));
  EXPECT_STREQ(std::getenv("UCX_NET_DEVICES"), "mlx5_0:1,lo");
  EXPECT_STREQ(std::getenv("UCX_LOG_LEVEL"), "error");
  EXPECT_EQ(std::getenv("UCX_ZCOPY_THRESH"), nullptr);  // RDMA keeps its zero copies
}

TEST(UcxEnvironment, RefusesWhatCannotWork) {
  const with_variable devices("UCX_NET_DEVICES", nullptr);
  const auto refused = [](const ucx_environment& environment, const std::string& why) {
    const auto prepared = prepare_ucx_environment(environment);
    ASSERT_FALSE(prepared) << why;
    EXPECT_EQ(prepared.error().code, error_code::invalid_argument);
    EXPECT_THAT(prepared.error().message, HasSubstr(why));
  };
  refused({.interface = "no_such0"}, "it has lo");
  refused({.interface = "eth0;x"}, "no network device");
  refused({}, "needs the network device");
  refused({.interface = "lo", .port_first = 30000, .port_last = 30003}, "at least 15 ports");
  refused({.interface = "lo", .port_first = 30003, .port_last = 30000}, "at least 15 ports");
  refused({.interface = "lo", .port_last = 30000}, "at least 15 ports");
}

TEST(UcxEnvironment, WithoutADeviceNothingIsOpened) {
  prepare_ucx_for_tests();
  for (const char* none : {static_cast<const char*>(nullptr), "", "all"}) {
    const with_variable devices("UCX_NET_DEVICES", none);
    const auto plane = open_ucx({.epoch = epoch, .rank = 0, .shape = {}});
    ASSERT_FALSE(plane);
    EXPECT_EQ(plane.error().code, error_code::failed_precondition);
  }
  const with_variable devices("UCX_NET_DEVICES", "no_such0");
  const auto plane = open_ucx({.epoch = epoch, .rank = 0, .shape = {}});
  ASSERT_FALSE(plane);
  EXPECT_EQ(plane.error().code, error_code::unavailable);
  EXPECT_THAT(plane.error().message, HasSubstr("no_such0"));
}

}  // namespace
}  // namespace troupe::transport::testing
