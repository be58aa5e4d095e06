#include "models/text/stop_matcher.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace troupe::text {
namespace {

struct outcome {
  std::string text;
  bool stopped = false;
  friend bool operator==(const outcome&, const outcome&) = default;
};

std::ostream& operator<<(std::ostream& out, const outcome& of) {
  return out << '"' << of.text << '"' << (of.stopped ? " stopped" : " ended");
}

outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  stop_matcher matcher(stops);
  outcome out;
  for (const std::string& piece : pieces) out.text += matcher.push(piece);
  out.text += matcher.finish();
  out.stopped = matcher.stopped();
  return out;
}

// By definition: the stop string that is complete first ends the text where it begins; of several
// that become complete at once the longest counts.
outcome expected(const std::vector<std::string>& stops, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (!stop.empty() && std::string_view(text).substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, WithoutStopStringsEverythingPassesAtOnce) {
  stop_matcher matcher({});
  EXPECT_EQ(matcher.push("any text"), "any text");
  EXPECT_EQ(matcher.finish(), "");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, EmptyStopStringsNeverMatch) {
  EXPECT_EQ(run({"", "x"}, {"abc"}), (outcome{"abc", false}));
}

TEST(StopMatcher, LetsThroughTheTextInFrontOfAStopStringOnly) {
  stop_matcher matcher({"\n\n", "###"});
  EXPECT_EQ(matcher.push("one\n"), "one");
  EXPECT_EQ(matcher.push("two\n"), "\ntwo");
  EXPECT_EQ(matcher.push("\nthree"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, GivesBackWhatItHeldWhenTheTextEnds) {
  stop_matcher matcher({"###"});
  EXPECT_EQ(matcher.push("a##"), "a");
  EXPECT_EQ(matcher.finish(), "##");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, FindsAStopStringThatBeginsInsideAFailedMatch) {
  EXPECT_EQ(run({"aab"}, {"aa", "ab"}), (outcome{"a", true}));
  EXPECT_EQ(run({"abac"}, {"aba", "bac"}), (outcome{"ab", true}));
}

TEST(StopMatcher, TheStringThatIsCompleteFirstStops) {
  // "c" is complete while "bcd" is not: a stream that arrives token by token must agree.
  EXPECT_EQ(run({"bcd", "c"}, {"abcd"}), (outcome{"ab", true}));
  EXPECT_EQ(run({"bcd", "c"}, {"abc", "d"}), (outcome{"ab", true}));
  EXPECT_EQ(run({"bc", "c"}, {"abc"}), (outcome{"a", true})) << "at once: the longest";
}

TEST(StopMatcher, AnyCutOfATextGivesTheSameResult) {
  for (unsigned seed = 1; seed <= 4000; ++seed) {
    std::mt19937 random(seed);
    const auto letters = [&](std::size_t size) {
      std::string text(size, 'a');
      for (char& letter : text) letter = static_cast<char>('a' + random() % 3);
      return text;
    };
    std::vector<std::string> stops;
    for (std::size_t i = random() % 4; i > 0; --i) stops.push_back(letters(random() % 6));
    const std::string text = letters(random() % 40);
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t size = std::min<std::size_t>(1 + random() % 7, text.size() - at);
      pieces.push_back(text.substr(at, size));
      at += size;
    }
    ASSERT_EQ(run(stops, pieces), expected(stops, text)) << "seed " << seed << " text " << text;
    ASSERT_EQ(run(stops, {text}), expected(stops, text)) << "seed " << seed << " text " << text;
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatCanStillBecomeAStopString) {
  for (unsigned seed = 1; seed <= 2000; ++seed) {
    std::mt19937 random(seed);
    std::vector<std::string> stops(1 + random() % 3);
    for (std::string& stop : stops) {
      stop.resize(1 + random() % 5);
      for (char& letter : stop) letter = static_cast<char>('a' + random() % 2);
    }
    stop_matcher matcher(stops);
    std::string text;
    std::string out;
    for (int i = 0; i < 30 && !matcher.stopped(); ++i) {
      const std::string piece(1, static_cast<char>('a' + random() % 2));
      text += piece;
      out += matcher.push(piece);
      if (matcher.stopped()) break;
      // The longest end of the text that begins a stop string, and not a byte more.
      std::size_t open = 0;
      for (const std::string& stop : stops) {
        for (std::size_t size = 1; size < stop.size(); ++size) {
          if (text.ends_with(stop.substr(0, size))) open = std::max(open, size);
        }
      }
      ASSERT_EQ(out, text.substr(0, text.size() - open)) << "seed " << seed << " text " << text;
    }
  }
}

TEST(StopMatcher, TreatsBytesAboveAsciiAndZeroBytesLikeAnyOther) {
  const std::string stop("\0\xe2\x82\xac", 4);
  EXPECT_EQ(run({stop}, {std::string("a\0", 2), "\xe2\x82", "\xac tail"}), (outcome{"a", true}));
}

}  // namespace
}  // namespace troupe::text
