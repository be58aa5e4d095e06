#include "net/request_parser.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace troupe::net {
namespace {

struct outcome {
  int status = 0;  // of the refusal; 0: complete; -1: more is needed
  http_request request = {};
  std::size_t used = 0;
  bool close = false;
  bool continue_expected = false;
};

// Feeds `bytes` in pieces of that size: the outcome may not depend on it.
outcome parse(std::string_view bytes, std::size_t piece, const http_limits& limits = {}) {
  request_parser parser(limits);
  std::size_t used = 0;
  bool continue_expected = false;
  while (used < bytes.size() && !parser.complete() && !parser.refused()) {
    used += parser.feed(bytes.substr(used, piece));
    continue_expected = continue_expected || (parser.head_complete() && parser.continue_expected());
  }
  if (parser.refused()) return {.status = parser.status()};
  if (!parser.complete()) return {.status = -1};
  const bool close = parser.close();
  return {.status = 0,
          .request = parser.take(),
          .used = used,
          .close = close,
          .continue_expected = continue_expected};
}

struct refusal_case {
  const char* claim;
  std::string bytes;
  int status;
};

std::string get(std::string_view fields) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
std::string post(std::string_view fields, std::string_view body = "") {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n" + std::string(body);
}
std::string chunked(std::string_view body) { return post("Transfer-Encoding: chunked\r\n", body); }

std::string claim_of(const testing::TestParamInfo<refusal_case>& of) { return of.param.claim; }

class RequestParserRefuses : public testing::TestWithParam<refusal_case> {};

TEST_P(RequestParserRefuses, Bytes) {
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{1} << 20}) {
    EXPECT_EQ(parse(GetParam().bytes, piece).status, GetParam().status)
        << GetParam().claim << ", fed in pieces of " << piece;
  }
}

const std::string long_text(20'000, 'a');

INSTANTIATE_TEST_SUITE_P(
    Lines, RequestParserRefuses,
    testing::Values(
        refusal_case{"BareLineFeed", "GET / HTTP/1.1\nHost: a\n\n", 400},
        refusal_case{"BareLineFeedBetweenFields", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
        refusal_case{"BareCarriageReturnInValue", get("X: a\rb\r\n"), 400},
        refusal_case{"BareCarriageReturnInRequestLine", "GET /\r HTTP/1.1\r\n\r\n", 400},
        refusal_case{"TwoCarriageReturns", get("X: a\r\r\n"), 400},
        refusal_case{"FoldedLine", get("X: a\r\n b\r\n"), 400},
        refusal_case{"FoldedLineWithTab", get("X: a\r\n\tb\r\n"), 400},
        refusal_case{"SpaceBeforeTheFirstField", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
        refusal_case{"SpaceBeforeTheColon", get("Content-Length : 3\r\n"), 400},
        refusal_case{"TabBeforeTheColon", get("X\t: 3\r\n"), 400},
        refusal_case{"NoColon", get("X\r\n"), 400}, refusal_case{"EmptyName", get(": a\r\n"), 400},
        refusal_case{"NameWithSlash", get("X/Y: a\r\n"), 400},
        refusal_case{"NameWithHighByte", get("X\xe9: a\r\n"), 400},
        refusal_case{"NulInValue", get(std::string("X: a\0b\r\n", 8)), 400},
        refusal_case{"NulInName", get(std::string("X\0: a\r\n", 7)), 400},
        refusal_case{"EscapeInValue", get("X: \x1b[2J\r\n"), 400},
        refusal_case{"DeleteInValue", get("X: \x7f\r\n"), 400},
        refusal_case{"VerticalTabInCoding",
                     post("Transfer-Encoding: \x0b"
                          "chunked\r\n"),
                     400},
        refusal_case{"TwoEmptyLinesFirst", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400}),
    claim_of);

INSTANTIATE_TEST_SUITE_P(
    RequestLines, RequestParserRefuses,
    testing::Values(
        refusal_case{"NoVersion", "GET /\r\n\r\n", 400},
        refusal_case{"TwoSpaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"SpaceAtTheEnd", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
        refusal_case{"SpaceInTarget", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"TabInTarget", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"HighByteInTarget", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"FragmentInTarget", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"TargetWithoutSlash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"AsteriskForGet", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"UserInAbsoluteTarget", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"NoHostInAbsoluteTarget", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"OtherScheme", "GET file:///etc HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"Connect", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501},
        refusal_case{"MethodWithParenthesis", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"EndlessMethod", long_text, 400},
        refusal_case{"TlsHandshake", "\x16\x03\x01\x02", 400},
        refusal_case{"Http2Preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        refusal_case{"Http12", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
        refusal_case{"Http09Number", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505},
        refusal_case{"LowerCaseVersion", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
        refusal_case{"VersionWithTwoDigits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
        refusal_case{"LongTarget", "GET /" + long_text + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
        refusal_case{"LongTargetThatNeverEnds", "GET /" + long_text, 414}),
    claim_of);

INSTANTIATE_TEST_SUITE_P(
    Fields, RequestParserRefuses,
    testing::Values(
        refusal_case{"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
        refusal_case{"TwoHosts", get("Host: a\r\n"), 400},
        refusal_case{"HostWithUser", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
        refusal_case{"HostWithPath", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
        refusal_case{"HostWithSpace", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
        refusal_case{"HostList", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
        refusal_case{"TwoAuthorizations", get("Authorization: a\r\nAuthorization: b\r\n"), 400},
        refusal_case{"TwoContentTypes", get("Content-Type: a\r\ncontent-type: a\r\n"), 400},
        refusal_case{"LongHeader", get("X: " + long_text + "\r\n"), 431},
        refusal_case{"LongHeaderThatNeverEnds", "GET / HTTP/1.1\r\nX: " + long_text, 431},
        refusal_case{"GzipBody", post("Content-Encoding: gzip\r\nContent-Length: 1\r\n", "x"), 415},
        refusal_case{"CompressedChunks",
                     post("Content-Encoding: br\r\nTransfer-Encoding: chunked\r\n"), 415},
        refusal_case{"UnknownExpectation", post("Expect: more\r\nContent-Length: 1\r\n"), 417}),
    claim_of);

INSTANTIATE_TEST_SUITE_P(
    Lengths, RequestParserRefuses,
    testing::Values(
        refusal_case{"NegativeLength", post("Content-Length: -2\r\n"), 400},
        refusal_case{"LengthWithPlus", post("Content-Length: +2\r\n"), 400},
        refusal_case{"LengthInHex", post("Content-Length: 0x2\r\n"), 400},
        refusal_case{"LengthWithSpace", post("Content-Length: 1 2\r\n"), 400},
        refusal_case{"LengthWithPoint", post("Content-Length: 2.0\r\n"), 400},
        refusal_case{"EmptyLength", post("Content-Length:\r\n"), 400},
        refusal_case{"LengthList", post("Content-Length: 2, 2\r\n"), 400},
        refusal_case{"TwoEqualLengths", post("Content-Length: 2\r\nContent-Length: 2\r\n"), 400},
        refusal_case{"TwoLengths", post("Content-Length: 2\r\nContent-Length: 3\r\n"), 400},
        refusal_case{"LengthAbove64Bits", post("Content-Length: 18446744073709551618\r\n"), 413},
        refusal_case{"LengthAboveTheBound", post("Content-Length: 4194305\r\n"), 413},
        refusal_case{"LengthAndCoding", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
                     400},
        refusal_case{"CodingAndLength", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
                     400},
        refusal_case{"CodingInHttp10",
                     "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        refusal_case{"TwoCodings",
                     post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), 400},
        refusal_case{"GzipCoding", post("Transfer-Encoding: gzip\r\n"), 501},
        refusal_case{"IdentityCoding", post("Transfer-Encoding: identity\r\n"), 501},
        refusal_case{"AlmostChunked", post("Transfer-Encoding: xchunked\r\n"), 501},
        refusal_case{"CodingList", post("Transfer-Encoding: gzip, chunked\r\n"), 400},
        refusal_case{"ChunkedNotLast", post("Transfer-Encoding: chunked, identity\r\n"), 400},
        refusal_case{"ChunkedTwice", post("Transfer-Encoding: chunked, chunked\r\n"), 400},
        refusal_case{"ChunkedInQuotes", post("Transfer-Encoding: \"chunked\"\r\n"), 400},
        refusal_case{"ChunkedWithParameter", post("Transfer-Encoding: chunked;q=1\r\n"), 400},
        refusal_case{"EmptyCoding", post("Transfer-Encoding:\r\n"), 400}),
    claim_of);

INSTANTIATE_TEST_SUITE_P(
    Chunks, RequestParserRefuses,
    testing::Values(refusal_case{"NegativeChunk", chunked("-2\r\n"), 400},
                    refusal_case{"ChunkWithPlus", chunked("+2\r\n"), 400},
                    refusal_case{"ChunkWithPrefix", chunked("0x2\r\nab\r\n"), 400},
                    refusal_case{"EmptyChunkSize", chunked("\r\n"), 400},
                    refusal_case{"SpaceBeforeChunkSize", chunked(" 2\r\nab\r\n"), 400},
                    refusal_case{"SpaceAfterChunkSize", chunked("2 \r\nab\r\n"), 400},
                    refusal_case{"ChunkAbove64Bits", chunked("10000000000000002\r\n"), 400},
                    refusal_case{"ChunkAboveTheBound", chunked("400001\r\n"), 413},
                    refusal_case{"ChunkOf64Bits", chunked("ffffffffffffffff\r\n"), 413},
                    refusal_case{"ChunksAboveTheBound", chunked("1\r\na\r\n400000\r\n"), 413},
                    refusal_case{"ChunkLongerThanItsSize", chunked("2\r\nabc\r\n0\r\n\r\n"), 400},
                    refusal_case{"ChunkEndingInLineFeed", chunked("2\r\nab\n0\r\n\r\n"), 400},
                    refusal_case{"ChunkEndingInTwoReturns", chunked("2\r\nab\r\r\n0\r\n\r\n"), 400},
                    refusal_case{"ChunkSizeEndingInLineFeed", chunked("2\nab\r\n0\r\n\r\n"), 400},
                    refusal_case{"LineFeedInExtension", chunked("2;a\nb\r\nab\r\n0\r\n\r\n"), 400},
                    refusal_case{"NulInExtension", chunked(std::string("2;a\0\r\nab\r\n", 10)),
                                 400},
                    refusal_case{"EndlessExtension", chunked("2;" + long_text), 400},
                    refusal_case{"EndlessChunkSize", chunked(std::string(1000, '0')), 400},
                    refusal_case{"FoldedTrailer", chunked("0\r\nA: b\r\n c\r\n\r\n"), 400},
                    refusal_case{"MalformedTrailer", chunked("0\r\nA b\r\n\r\n"), 400},
                    refusal_case{"LongTrailer", chunked("0\r\nA: " + long_text + "\r\n\r\n"), 431}),
    claim_of);

TEST(RequestParser, RefusesTooManyFieldsWithTheTrailers) {
  std::string fields;
  for (int i = 0; i < 62; ++i) fields += "a: b\r\n";
  EXPECT_EQ(parse(get(fields + "a: b\r\n"), 1 << 20).status, 0);  // 64 with Host
  EXPECT_EQ(parse(get(fields + "a: b\r\na: b\r\n"), 1 << 20).status, 431);
  EXPECT_EQ(parse(chunked("0\r\n" + fields + "\r\n"), 1 << 20).status, 0);
  EXPECT_EQ(parse(chunked("0\r\n" + fields + "a: b\r\n\r\n"), 1 << 20).status, 431);
  const std::string half(9'000, 'x');
  EXPECT_EQ(parse(chunked("0\r\nX: " + half + "\r\n\r\n"), 1 << 20).status, 0);
  EXPECT_EQ(parse(post("Transfer-Encoding: chunked\r\nX: " + half + "\r\n",
                       "0\r\nX: " + half + "\r\n\r\n"),
                  1 << 20)
                .status,
            431);
}

TEST(RequestParser, RefusesTooManyChunkExtensions) {
  std::string body;
  for (int i = 0; i < 200; ++i) body += "1;" + std::string(100, 'x') + "\r\na\r\n";
  EXPECT_EQ(parse(chunked(body), 1 << 20).status, 400);
}

TEST(RequestParser, TakesWhatFitsEachBoundExactly) {
  const http_limits limits = {
      .header_bytes_max = 100, .header_fields_max = 2, .target_bytes_max = 20, .body_bytes_max = 5};
  const std::string target = "/" + std::string(19, 'x');
  const std::string line = "POST " + target + " HTTP/1.1\r\n";
  EXPECT_EQ(parse(line + "Host: a\r\n\r\n", 1, limits).status, 0);
  EXPECT_EQ(parse("POST /x" + target + " HTTP/1.1\r\nHost: a\r\n\r\n", 1, limits).status, 414);
  const std::string whole = line + "Host: a\r\nX: ";
  const std::string fits(100 - whole.size() - 4, 'y');
  EXPECT_EQ(parse(whole + fits + "\r\n\r\n", 3, limits).status, 0);
  EXPECT_EQ(parse(whole + fits + "y\r\n\r\n", 3, limits).status, 431);
  EXPECT_EQ(parse(post("Content-Length: 5\r\n", "12345"), 1, limits).request.body, "12345");
  EXPECT_EQ(parse(post("Content-Length: 6\r\n", "123456"), 1, limits).status, 413);
}

TEST(RequestParser, ReadsBodiesAndStopsAtTheirEnd) {
  for (const std::size_t piece : {std::size_t{1}, std::size_t{5}, std::size_t{1000}}) {
    const std::string sized = post("Content-Length: 5\r\n", "hello");
    outcome got = parse(sized + "GET /next", piece);
    EXPECT_EQ(got.request.body, "hello");
    EXPECT_EQ(got.used, sized.size());
    const std::string coded = chunked("2\r\nhe\r\n0003;ext=\"v\"\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n");
    got = parse(coded + "GET /next", piece);
    EXPECT_EQ(got.status, 0);
    EXPECT_EQ(got.request.body, "hello");
    EXPECT_EQ(got.used, coded.size());
  }
}

TEST(RequestParser, LeavesTrailersOut) {
  const outcome got =
      parse(chunked("0\r\nHost: evil\r\nAuthorization: x\r\nContent-Length: 9\r\n\r\n"), 1 << 20);
  ASSERT_EQ(got.status, 0);
  EXPECT_EQ(got.request.header("host"), "a");
  EXPECT_EQ(got.request.header("authorization"), "");
  EXPECT_EQ(got.request.headers.size(), 2U);
}

TEST(RequestParser, TakesAnAbsoluteTargetApart) {
  outcome got = parse("GET http://b:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n", 1);
  EXPECT_EQ(got.request.target, "/x?y");
  EXPECT_EQ(got.request.path(), "/x");
  EXPECT_EQ(got.request.header("host"), "b:1");
  got = parse("GET HTTPS://b?y HTTP/1.1\r\nHost: a\r\n\r\n", 1);
  EXPECT_EQ(got.request.target, "/?y");
}

TEST(RequestParser, LowersNamesAndTrimsValues) {
  const outcome got = parse(get("X-ThInG: \t a b \t\r\nX-Forwarded-For:\r\n"), 1);
  ASSERT_EQ(got.status, 0);
  EXPECT_EQ(got.request.header("x-thing"), "a b");
  EXPECT_EQ(got.request.headers.back(), header_field("x-forwarded-for", ""));
}

TEST(RequestParser, KnowsWhenTheConnectionEnds) {
  EXPECT_FALSE(parse(get(""), 1).close);
  EXPECT_TRUE(parse(get("Connection: x, CLOSE\r\n"), 1).close);
  EXPECT_TRUE(parse(get("Connection: keep-alive\r\nConnection: close\r\n"), 1).close);
  EXPECT_TRUE(parse("GET / HTTP/1.0\r\n\r\n", 1).close);
}

TEST(RequestParser, ToleratesOneEmptyLineFirstAndAsteriskForOptions) {
  EXPECT_EQ(parse("\r\n" + get(""), 1).status, 0);
  EXPECT_EQ(parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 1).request.target, "*");
}

TEST(RequestParser, ExpectsContinueOnlyForABody) {
  EXPECT_TRUE(
      parse(post("Expect: 100-Continue\r\nContent-Length: 1\r\n", "x"), 1).continue_expected);
  EXPECT_FALSE(parse(post("Expect: 100-continue\r\nContent-Length: 0\r\n"), 1).continue_expected);
}

TEST(RequestParser, IsReadyForTheNextRequest) {
  const http_limits limits;
  request_parser parser(limits);
  const std::string two = post("Content-Length: 1\r\nConnection: close\r\n", "x") + get("");
  const std::size_t used = parser.feed(two);
  ASSERT_TRUE(parser.complete());
  EXPECT_EQ(parser.take().body, "x");
  EXPECT_EQ(used + parser.feed(std::string_view(two).substr(used)), two.size());
  ASSERT_TRUE(parser.complete());
  EXPECT_FALSE(parser.close());
  EXPECT_EQ(parser.take().method, "GET");
}

}  // namespace
}  // namespace troupe::net
