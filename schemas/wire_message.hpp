// Cap'n Proto messages of one segment without a table in front: what the codecs share.
//
// One segment, so that a receiver checks one length and nothing else points elsewhere. The library
// throws on malformed messages; nothing thrown leaves this folder. Internal to schemas/.
#pragma once

#include <capnp/message.h>
#include <fmt/format.h>
#include <kj/exception.h>

#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "schemas/codec.hpp"

namespace troupe::schemas {

inline constexpr std::size_t word_bytes = sizeof(capnp::word);

// The bytes of a message that `fill(builder)` writes. `estimate_bytes` may be short: costs a copy.
template <class Root, class Fill>
[[nodiscard]] wire_bytes write_message(std::size_t estimate_bytes, Fill fill) {
  const auto bytes_of = [](capnp::MessageBuilder& message) {
    const auto segments = message.getSegmentsForOutput();
    TROUPE_CHECK(segments.size() == 1);
    const auto bytes = segments[0].asBytes();
    return wire_bytes(bytes.begin(), bytes.end());
  };
  capnp::MallocMessageBuilder message(static_cast<unsigned>(estimate_bytes / word_bytes + 16));
  fill(message.template initRoot<Root>());
  if (message.getSegmentsForOutput().size() == 1) return bytes_of(message);
  const auto root = message.template getRoot<Root>().asReader();
  capnp::MallocMessageBuilder whole(static_cast<unsigned>(root.totalSize().wordCount + 1));
  whole.setRoot(root);
  return bytes_of(whole);
}

// A field that is not what it may be; caught in read_message.
struct bad_field {
  base::error_code code = base::error_code::invalid_argument;
  std::string what;
};

[[noreturn]] inline void refuse_field(std::string what,
                                      base::error_code code = base::error_code::invalid_argument) {
  throw bad_field{code, std::move(what)};
}

// What `read(root)` makes of hostile bytes. Errors: as decode_* in codec.hpp.
template <class Root, class Read>
[[nodiscard]] auto read_message(std::span<const std::uint8_t> bytes, std::size_t bytes_max,
                                std::string_view name, Read read)
    -> base::result<std::invoke_result_t<Read, typename Root::Reader>> {
  const auto refuse = [&](base::error_code code, std::string_view why) {
    return base::fail(code, "schemas", fmt::format("not a {}: {}", name, why));
  };
  if (bytes.size() > bytes_max) {
    return refuse(base::error_code::invalid_argument,
                  fmt::format("{} bytes, at most {} are taken", bytes.size(), bytes_max));
  }
  if (bytes.empty() || bytes.size() % word_bytes != 0) {
    return refuse(base::error_code::invalid_argument,
                  fmt::format("{} bytes are no whole words", bytes.size()));
  }
  // The library reads words: aligned, and ours for the time of reading.
  std::vector<std::uint64_t> words(bytes.size() / word_bytes);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  const kj::ArrayPtr<const capnp::word> segment(reinterpret_cast<const capnp::word*>(words.data()),
                                                words.size());
  // Reading a list twice counts twice; a message is read once, so four times its size is generous
  // and still bounds a message whose pointers share their targets.
  const capnp::ReaderOptions options{.traversalLimitInWords = 4 * words.size() + 64,
                                     .nestingLimit = 8};
  try {
    const kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments(&segment, 1);
    capnp::SegmentArrayMessageReader message(segments, options);
    return read(message.template getRoot<Root>());
  } catch (const bad_field& field) {
    return refuse(field.code, field.what);
  } catch (const kj::Exception& malformed) {
    return refuse(base::error_code::invalid_argument, malformed.getDescription().cStr());
  }
}

}  // namespace troupe::schemas
