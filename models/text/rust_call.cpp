#include "models/text/rust_call.hpp"

#include <fstream>
#include <system_error>

namespace troupe::text::detail {

troupe_text_view view(std::string_view text) {
  const char* data = text.data() == nullptr ? "" : text.data();
  return {reinterpret_cast<const std::uint8_t*>(data), text.size()};
}

troupe_text_view view(const std::optional<std::string_view>& text) {
  return text ? view(*text) : troupe_text_view{nullptr, 0};
}

std::string take(troupe_text_buffer buffer) {
  std::string text(reinterpret_cast<const char*>(buffer.data), buffer.size);
  troupe_text_buffer_free(buffer);
  return text;
}

tl::unexpected<base::error> failure(std::int32_t code, troupe_text_buffer message) {
  return base::fail(static_cast<base::error_code>(code), "models/text", take(message));
}

base::result<std::optional<std::string>> read_file(const models::model_folder& folder,
                                                   std::string_view name, std::size_t bytes_max) {
  if (folder.is_linked()) {
    const models::linked_file* found = folder.find_linked(name);
    if (found == nullptr) return std::optional<std::string>();
    return std::optional<std::string>(found->text());
  }
  const std::filesystem::path path = folder / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return std::optional<std::string>();
  }
  // A pipe or a device has no size and may never end.
  if (!std::filesystem::is_regular_file(path, error)) {
    return base::fail(base::error_code::invalid_argument, "models/text",
                      path.string() + " is not a regular file");
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes;
  std::string chunk(std::size_t{1} << 16, '\0');
  while (file && bytes.size() <= bytes_max) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    bytes.append(chunk, 0, static_cast<std::size_t>(file.gcount()));
  }
  if (bytes.size() > bytes_max) {
    return base::fail(base::error_code::resource_exhausted, "models/text",
                      path.string() + " is larger than " + std::to_string(bytes_max) + " bytes");
  }
  if (!file.eof()) {
    return base::fail(base::error_code::unavailable, "models/text",
                      path.string() + " cannot be read: check its permissions");
  }
  return std::optional<std::string>(std::move(bytes));
}

}  // namespace troupe::text::detail
