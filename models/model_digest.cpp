#include "models/model_digest.hpp"

#include <cstdint>
#include <string>

#include "models/checkpoint_file.hpp"

namespace troupe::models {
namespace {

constexpr std::uint64_t file_bytes_max = std::uint64_t{256} << 20;

// Length first, so that no two lists of texts hash alike.
void add(base::sha256& hash, std::string_view text) {
  hash.update(std::to_string(text.size()) + ":");
  hash.update(text);
}

base::result<void> add_file(base::sha256& hash, const model_folder& folder, std::string_view name) {
  const auto text = read_text_file(folder, name, file_bytes_max);
  if (text) {
    add(hash, *text);
  } else if (text.error().code == base::error_code::not_found) {
    add(hash, "absent");
  } else {
    return tl::unexpected(text.error());
  }
  return {};
}

}  // namespace

base::result<base::digest> description_digest(const model_folder& folder, const checkpoint& files) {
  base::sha256 hash;
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    add(hash, name);
    TROUPE_TRY_VOID(add_file(hash, folder, name));
  }
  for (const tensor_info& tensor : files.tensors()) {
    add(hash, tensor.name);
    add(hash, to_string(tensor.dtype));
    std::string shape;
    for (const std::int64_t size : tensor.shape) shape += std::to_string(size) + ",";
    add(hash, shape);
  }
  return hash.finish();
}

}  // namespace troupe::models
