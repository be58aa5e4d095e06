// The keys that open the HTTP API. Kept as SHA-256 only; a key is looked for among all of them in
// the same time wherever it differs.
//
// A file holds one key a line, or `name:` and the SHA-256 of a key in 64 hexadecimal digits
// (`printf %s "$KEY" | sha256sum`). Empty lines and lines that begin with # are skipped.
//
//   TROUPE_TRY(keys, serving::api_keys::parse(text, "keys.txt"));
//   if (!keys.admits(request.header("authorization"))) ...   // 401
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/sha256.hpp"

namespace troupe::serving {

class api_keys {
 public:
  static constexpr std::size_t keys_max = 4096;
  // Shorter ones can be guessed: 16 random letters and digits are 95 bits, 22 are 128.
  static constexpr std::size_t key_bytes_min = 16;
  static constexpr std::size_t key_bytes_max = 512;

  // No key at all: everybody is admitted.
  api_keys() = default;

  // `file` names the text in errors.
  // Errors: invalid_argument (no key in it, a line that is neither form, a key that is too short:
  // which line; the line itself is never shown).
  [[nodiscard]] static base::result<api_keys> parse(std::string_view text, std::string_view file);

  [[nodiscard]] bool empty() const noexcept { return hashes_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return hashes_.size(); }

  // Whether the value of an Authorization field ("Bearer KEY") holds one of the keys.
  // Cost: one SHA-256 and a pass over all keys, the same for every key of one length.
  [[nodiscard]] bool admits(std::string_view authorization) const {
    return tenant_of(authorization).has_value();
  }
  // Names the key without telling it, the same in every life of the server: whose cached prompts
  // are whose. Empty where there are no keys; none where the key is not known.
  [[nodiscard]] std::optional<std::string> tenant_of(std::string_view authorization) const;

 private:
  std::vector<base::digest> hashes_;
};

}  // namespace troupe::serving
