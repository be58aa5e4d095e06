#include "transport/tls_wire.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace troupe::transport::tls_wire {
namespace {

std::string hex(std::span<const std::byte> bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text.push_back(digits[std::to_integer<unsigned>(byte) >> 4U]);
    text.push_back(digits[std::to_integer<unsigned>(byte) & 15U]);
  }
  return text;
}

const data_plane_seat seat{.epoch = {.incarnation = 0x1122334455667788, .number = 9},
                           .rank = 5,
                           .shape = {.tp_size = 4, .pp_size = 2}};

// What version 1 puts on the wire, for ever.
TEST(TlsWire, BytesOfVersionOneStay) {
  const data_plane_address address = encode(endpoint{.host = "10.0.0.3", .port = 8480});
  EXPECT_EQ(hex(std::as_bytes(std::span(address))), "0120210831302e302e302e33");
  EXPECT_EQ(hex(encode(greeting{.seat = seat})),
            "7472702d746c730a0100000005000000"
            "887766554433221109000000000000000400000002000000"
            "0000000000000000");
  EXPECT_EQ(hex(encode(verdict::other_epoch)), "7472702d7361790a0100000002000000");
  std::array<std::byte, header_bytes> bytes{};
  encode(header{.epoch_number = 9,
                .size = 0x10000,
                .tag = {.kind = operation::broadcast, .round = 3, .group = 2, .number = 77}},
         bytes);
  EXPECT_EQ(hex(bytes), "090000000000000000000100000000004d00000006030200");
}

TEST(TlsWire, EverythingComesBackAsItWent) {
  for (const char* host : {"10.0.0.3", "::1", "fe80::1234:5678:9abc:def0%eth0"}) {
    const auto at = decode_endpoint(encode(endpoint{.host = host, .port = 65535}));
    ASSERT_TRUE(at) << at.error().message;
    EXPECT_EQ(at->host, host);
    EXPECT_EQ(at->port, 65535);
  }
  const auto back = decode_greeting(encode(greeting{.seat = seat}));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->seat.epoch, seat.epoch);
  EXPECT_EQ(back->seat.rank, seat.rank);
  EXPECT_EQ(back->seat.shape.tp_size, 4);
  EXPECT_EQ(back->seat.shape.pp_size, 2);
  EXPECT_EQ(judge(*back, seat), verdict::welcome);
  for (const verdict of : {verdict::welcome, verdict::wrong_rank, verdict::rank_is_here}) {
    EXPECT_EQ(decode_verdict(encode(of)).value(), of);
  }
  std::array<std::byte, header_bytes> bytes{};
  const header sent{.epoch_number = ~0ULL,
                    .size = 1ULL << 40U,
                    .tag = {.kind = operation::barrier, .round = 255, .group = 255, .number = ~0U}};
  encode(sent, bytes);
  EXPECT_EQ(decode_header(bytes), sent);
}

TEST(TlsWire, EveryCutOrPaddedAddressIsRefused) {
  const data_plane_address whole = encode(endpoint{.host = "10.0.0.3", .port = 8480});
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_FALSE(decode_endpoint(std::span(whole).first(bytes))) << bytes;
  }
  data_plane_address longer = whole;
  longer.push_back('x');
  EXPECT_FALSE(decode_endpoint(longer));
  const auto with = [&](std::size_t at, std::uint8_t value) {
    data_plane_address changed = whole;
    changed[at] = value;
    return decode_endpoint(changed).has_value();
  };
  EXPECT_FALSE(with(0, 2));     // another version
  EXPECT_FALSE(with(3, 255));   // a host longer than the bytes
  EXPECT_FALSE(with(5, 0));     // NUL in the host
  EXPECT_FALSE(with(5, '\n'));  // would break a log line
  EXPECT_TRUE(with(1, 0));
  data_plane_address no_port = whole;
  no_port[1] = no_port[2] = 0;
  EXPECT_FALSE(decode_endpoint(no_port));
  EXPECT_FALSE(decode_endpoint(data_plane_address{1, 1, 1, 0}));
  EXPECT_FALSE(decode_endpoint(data_plane_address(data_plane_address_bytes_max, 1)));
}

TEST(TlsWire, RandomBytesNeverGiveARankOrSizesThatCannotBe) {
  constexpr std::uint64_t seed = 20261121;
  std::mt19937_64 random(seed);
  const auto good = encode(greeting{.seat = seat});
  int accepted = 0;
  for (int round = 0; round < 200000; ++round) {
    auto bytes = good;
    const int changes = static_cast<int>(random() % 4);
    for (int i = 0; i < changes; ++i) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    const auto came = decode_greeting(bytes);
    if (!came || came->version != protocol_version) continue;
    ++accepted;
    const world_shape shape = came->seat.shape;
    ASSERT_GE(came->seat.rank, 0) << "seed " << seed << " round " << round;
    ASSERT_LT(came->seat.rank, shape.tp_size * shape.pp_size) << round;
    ASSERT_LE(shape.tp_size, 64) << round;
    ASSERT_LE(shape.pp_size, 64) << round;
    ASSERT_FALSE(reason(judge(*came, seat), *came, seat).empty());
  }
  EXPECT_GT(accepted, 1000);
  for (int round = 0; round < 200000; ++round) {
    data_plane_address bytes(random() % 64);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random() % 128);
    if (!bytes.empty()) bytes[0] = 1;
    const auto at = decode_endpoint(bytes);
    if (at) {
      ASSERT_NE(at->port, 0) << "seed " << seed << " round " << round;
      ASSERT_EQ(bytes.size(), at->host.size() + 4);
    }
  }
}

TEST(TlsWire, VerdictsOfOtherBytesAreRefused) {
  auto bytes = encode(verdict::welcome);
  bytes[12] = std::byte{6};
  EXPECT_FALSE(decode_verdict(bytes));
  bytes = encode(verdict::welcome);
  bytes[0] = std::byte{0};
  EXPECT_FALSE(decode_verdict(bytes));
}

TEST(TlsWire, JudgesVersionThenEpochThenWorld) {
  greeting theirs{.seat = seat};
  theirs.seat.shape = {.tp_size = 2, .pp_size = 4};
  EXPECT_EQ(judge(theirs, seat), verdict::other_world);
  theirs.seat.epoch.number = 8;
  EXPECT_EQ(judge(theirs, seat), verdict::other_epoch);
  theirs.seat.epoch = {.incarnation = 1, .number = 9};
  EXPECT_EQ(judge(theirs, seat), verdict::other_epoch);
  theirs.version = 2;
  EXPECT_EQ(judge(theirs, seat), verdict::other_version);
  EXPECT_NE(reason(verdict::other_epoch, theirs, seat).find("1/9"), std::string::npos);
}

}  // namespace
}  // namespace troupe::transport::tls_wire
