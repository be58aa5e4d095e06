#include "base/base64.hpp"

#include <openssl/evp.h>

#include <algorithm>

namespace troupe::base {

result<std::string> from_base64(std::string_view text) {
  std::string compact(text);
  std::erase_if(compact, [](char c) { return c == '\n' || c == '\r' || c == ' '; });
  const auto padding = std::ranges::count(compact, '=');
  std::string bytes(compact.size(), '\0');
  const int size = compact.size() % 4 != 0 || padding > 2
                       ? -1
                       : EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                         reinterpret_cast<const unsigned char*>(compact.data()),
                                         static_cast<int>(compact.size()));
  if (size < 0) return fail(error_code::invalid_argument, "base", "this is not base64");
  bytes.resize(static_cast<std::size_t>(size - padding));
  return bytes;
}

}  // namespace troupe::base
