#include "models/text/chat_template.hpp"

#include "models/text/rust_call.hpp"

namespace troupe::text {

namespace {

std::optional<std::string_view> as_view(const std::optional<std::string>& text) {
  return text ? std::optional<std::string_view>(*text) : std::nullopt;
}

}  // namespace

void chat_template::closer::operator()(troupe_text_template* opened) const noexcept {
  troupe_text_template_free(opened);
}

base::result<chat_template> chat_template::open(const models::model_folder& folder) {
  constexpr std::string_view name = "chat_template.jinja";
  TROUPE_TRY(source, detail::read_file(folder, name, detail::template_bytes_max));
  TROUPE_TRY(config, detail::read_file(folder, "tokenizer_config.json", detail::json_bytes_max));
  TROUPE_TRY(special_map,
             detail::read_file(folder, "special_tokens_map.json", detail::json_bytes_max));
  auto opened = from_files({.chat_template = as_view(source),
                            .tokenizer_config_json = as_view(config),
                            .special_tokens_map_json = as_view(special_map)});
  if (!opened && opened.error().code == base::error_code::not_found) {
    opened.error().message = "no chat template: looked for " + (folder / name).string() +
                             " and for chat_template in tokenizer_config.json beside it";
  } else if (!opened) {
    opened.error().message += " (in " + folder.path().string() + ")";
  }
  return opened;
}

base::result<chat_template> chat_template::from_files(const chat_template_files& files) {
  troupe_text_template* opened = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_template_open(
      detail::view(files.chat_template), detail::view(files.tokenizer_config_json),
      detail::view(files.special_tokens_map_json), &opened, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return chat_template(handle(opened));
}

base::result<std::string> chat_template::render(std::string_view messages_json,
                                                const render_options& options) const {
  std::string allowed;
  for (const std::string& name : options.kwargs_allowed) {
    allowed += name + '\n';
  }
  const chat_limits& limits = options.limits;
  const civil_time& now = options.now;
  const troupe_text_request request = {
      .messages_json = detail::view(messages_json),
      .tools_json = detail::view(options.tools_json),
      .documents_json = detail::view(options.documents_json),
      .kwargs_json = detail::view(options.kwargs_json),
      .kwargs_allowed = detail::view(std::string_view(allowed)),
      .add_generation_prompt = options.add_generation_prompt,
      .now = {now.year, now.month, now.day, now.hour, now.minute, now.second},
      .limits = {limits.fuel_base, limits.fuel_per_value, limits.fuel_max, limits.output_bytes_max,
                 limits.recursion_max},
  };
  troupe_text_buffer text = {};
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_template_render(handle_.get(), &request, &text, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return detail::take(text);
}

}  // namespace troupe::text
