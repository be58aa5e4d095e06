#include "models/text/tokenizer.hpp"

#include "models/text/rust_call.hpp"

namespace troupe::text {

namespace {

std::optional<std::string_view> as_view(const std::optional<std::string>& text) {
  return text ? std::optional<std::string_view>(*text) : std::nullopt;
}

}  // namespace

void tokenizer::closer::operator()(troupe_text_tokenizer* opened) const noexcept {
  troupe_text_tokenizer_free(opened);
}

base::result<tokenizer> tokenizer::open(const models::model_folder& folder) {
  constexpr std::string_view name = "tokenizer.json";
  TROUPE_TRY(json, detail::read_file(folder, name, detail::json_bytes_max));
  if (!json) {
    return base::fail(base::error_code::not_found, "models/text",
                      "no tokenizer: looked for " + (folder / name).string() +
                          " (save it with the tokenizers library, or pass token ids)");
  }
  TROUPE_TRY(config, detail::read_file(folder, "tokenizer_config.json", detail::json_bytes_max));
  TROUPE_TRY(special_map,
             detail::read_file(folder, "special_tokens_map.json", detail::json_bytes_max));
  auto opened = from_json({.tokenizer_json = *json,
                           .tokenizer_config_json = as_view(config),
                           .special_tokens_map_json = as_view(special_map)});
  if (!opened) {
    opened.error().message += " (in " + folder.path().string() + ")";
  }
  return opened;
}

base::result<tokenizer> tokenizer::from_json(const tokenizer_files& files) {
  const troupe_text_files views = {detail::view(files.tokenizer_json),
                                   detail::view(files.tokenizer_config_json),
                                   detail::view(files.special_tokens_map_json)};
  troupe_text_tokenizer* opened = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_tokenizer_open(&views, &opened, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return tokenizer(handle(opened));
}

base::result<std::vector<std::int32_t>> tokenizer::encode(std::string_view text,
                                                          encode_options options) const {
  troupe_text_ids ids = {};
  troupe_text_buffer message = {};
  const std::int32_t code =
      troupe_text_encode(handle_.get(), detail::view(text), options.add_special_tokens,
                         options.parse_special, &ids, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  std::vector<std::int32_t> result(ids.data, ids.data + ids.size);
  troupe_text_ids_free(ids);
  return result;
}

base::result<std::string> tokenizer::decode(std::span<const std::int32_t> ids,
                                            decode_options options) const {
  troupe_text_buffer text = {};
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_decode(handle_.get(), ids.data(), ids.size(),
                                               options.skip_special_tokens, &text, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return detail::take(text);
}

std::int32_t tokenizer::token_count() const { return troupe_text_token_count(handle_.get()); }

base::result<std::string> tokenizer::id_to_token(std::int32_t id) const {
  troupe_text_buffer text = {};
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_id_to_token(handle_.get(), id, &text, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return detail::take(text);
}

std::optional<std::int32_t> tokenizer::token_to_id(std::string_view token) const {
  const std::int32_t id = troupe_text_token_to_id(handle_.get(), detail::view(token));
  return id < 0 ? std::nullopt : std::optional(id);
}

bool tokenizer::is_special(std::int32_t id) const {
  return troupe_text_is_special(handle_.get(), id);
}

}  // namespace troupe::text
