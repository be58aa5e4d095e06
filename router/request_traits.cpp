#include "router/request_traits.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace troupe::router {
namespace {

using nlohmann::json;

constexpr std::int64_t bytes_per_token = 4;
constexpr std::size_t prefix_bytes_min = 16;  // fewer tell nothing
constexpr std::int64_t output_tokens_max = std::int64_t{1} << 24;
constexpr std::int64_t choices_max = 1024;
constexpr int depth_max = 64;

// Hears the JSON as it is read. Depth 1 is the request's object; "messages" and "prompt" hold what
// the prefix is made of, at any depth.
class listener final : public nlohmann::json_sax<json> {
 public:
  explicit listener(const traits_limits& limits) : limits_(limits) {}

  bool null() override { return true; }
  bool boolean(bool value) override {
    if (depth_ == 1 && key_ == "stream") stream_ = value;
    return true;
  }
  bool number_integer(number_integer_t value) override {
    take_number(value);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    take_number(static_cast<std::int64_t>(std::min<number_unsigned_t>(value, INT64_MAX)));
    return true;
  }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return true; }
  bool string(string_t& value) override {
    if (depth_ == 1) {
      take_field(value);
    }
    if (within_ != part::other) {
      if (depth_ == 3 && key_ == "role") user_ = value == "user";
      take_text(value);
    }
    return true;
  }
  bool binary(binary_t& /*value*/) override { return true; }
  bool start_object(std::size_t /*elements*/) override { return ++depth_ <= depth_max; }
  bool key(string_t& value) override {
    key_ = std::move(value);
    if (depth_ != 1) return true;
    within_ = key_ == "messages"                    ? part::messages
              : key_ == "prompt" || key_ == "input" ? part::prompt
                                                    : part::other;
    return true;
  }
  bool end_object() override {
    --depth_;
    if (within_ == part::messages && depth_ == 2 && std::exchange(user_, false)) closed_ = true;
    return true;
  }
  bool start_array(std::size_t /*elements*/) override { return ++depth_ <= depth_max; }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t /*at*/, const std::string& /*token*/,
                   const json::exception& /*why*/) override {
    return false;
  }

  request_traits traits(std::string_view session, std::size_t unread_bytes) const {
    const auto bytes = static_cast<std::int64_t>(text_bytes_ + unread_bytes);
    request_traits made{.model = model_,
                        .stream = stream_,
                        .prompt_tokens = ids_ + bytes / bytes_per_token + 1,
                        .output_tokens = output_tokens_.value_or(limits_.output_tokens_assumed) *
                                         std::clamp<std::int64_t>(choices_, 1, choices_max)};
    const std::string_view named = !session.empty() ? session : std::string_view(session_);
    // Of two models the same beginning has nothing in common.
    if (!named.empty()) {
      made.affinity = hash_of(model_ + '\n' + std::string(named));
    } else if (prefix_.size() >= prefix_bytes_min) {
      made.affinity = hash_of(model_ + '\0' + prefix_);
    }
    return made;
  }

 private:
  enum class part : std::uint8_t { other, messages, prompt };

  void take_number(std::int64_t value) {
    if (depth_ == 1 && (key_ == "max_tokens" || key_ == "max_completion_tokens")) {
      output_tokens_ = std::clamp<std::int64_t>(value, 0, output_tokens_max);
    } else if (depth_ == 1 && (key_ == "n" || key_ == "best_of")) {
      choices_ = std::max(choices_, value);
    } else if (within_ == part::prompt) {
      ++ids_;
      const auto id = static_cast<std::uint32_t>(value);
      const std::array<char, 4> bytes = {static_cast<char>(id), static_cast<char>(id >> 8U),
                                         static_cast<char>(id >> 16U),
                                         static_cast<char>(id >> 24U)};
      append({bytes.data(), bytes.size()});
    }
  }

  void take_field(const std::string& value) {
    if (key_ == "model") model_ = value;
    // OpenAI's prompt_cache_key says more than user.
    if (key_ == "prompt_cache_key" || (key_ == "user" && session_.empty())) session_ = value;
  }

  void take_text(std::string_view value) {
    text_bytes_ += value.size();
    append(value);
  }

  void append(std::string_view bytes) {
    if (closed_) return;
    const std::size_t most =
        within_ == part::messages ? limits_.prefix_bytes_max : limits_.text_prefix_bytes_max;
    prefix_ += bytes.substr(0, most - std::min(most, prefix_.size()));
  }

  const traits_limits& limits_;
  int depth_ = 0;
  std::string key_;  // the last one, at any depth
  part within_ = part::other;
  bool user_ = false;    // the message being read is a user's
  bool closed_ = false;  // the first user's message has ended
  std::string model_;
  std::string session_;
  std::string prefix_;
  std::size_t text_bytes_ = 0;
  std::int64_t ids_ = 0;
  std::optional<std::int64_t> output_tokens_;
  std::int64_t choices_ = 1;
  bool stream_ = false;
};

}  // namespace

std::uint64_t hash_of(std::string_view text) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  }
  hash = (hash ^ (hash >> 30U)) * 0xbf58476d1ce4e5b9U;
  hash = (hash ^ (hash >> 27U)) * 0x94d049bb133111ebU;
  return hash ^ (hash >> 31U);
}

request_traits read_traits(std::string_view body, std::string_view session,
                           const traits_limits& limits) {
  const std::string_view read = body.substr(0, limits.read_bytes_max);
  listener heard(limits);
  // What was heard before an error, or before the end of what is read, still counts.
  static_cast<void>(json::sax_parse(read.begin(), read.end(), &heard));
  return heard.traits(session, body.size() - read.size());
}

}  // namespace troupe::router
