#include "serving/tool_parsers.hpp"

#include <optional>
#include <string>
#include <utility>

#include "serving/call_scanner.hpp"
#include "serving/marker.hpp"

namespace troupe::serving {
namespace {

using kind = answer_piece::kind;

// Numbers calls and drops those beyond the bound.
class call_writer {
 public:
  explicit call_writer(std::size_t calls_max) : calls_max_(calls_max) {}

  void begin(std::string_view name, answer_pieces& out) {
    ++begun_;
    if (begun_ <= calls_max_) append_piece(out, kind::call, name, begun_ - 1);
  }
  void arguments(std::string_view text, answer_pieces& out) {
    if (begun_ <= calls_max_) append_piece(out, kind::arguments, text, begun_ - 1);
  }
  [[nodiscard]] bool any() const noexcept { return begun_ > 0; }

 private:
  const std::size_t calls_max_;
  std::size_t begun_ = 0;
};

// A call_scanner's call as pieces.
class call_reader {
 public:
  // Characters taken. `done()` and `failed()` tell why not all.
  std::size_t push(std::string_view text, call_writer& calls, answer_pieces& out) {
    const std::size_t taken = scanner_.push(text);
    if (failed() && !told_) return taken;
    if (!told_ && scanner_.name()) {
      told_ = true;
      calls.begin(*scanner_.name(), out);
    }
    if (told_) calls.arguments(scanner_.take_arguments(), out);
    return taken;
  }
  [[nodiscard]] bool done() const { return scanner_.at() == call_scanner::state::done; }
  [[nodiscard]] bool failed() const { return scanner_.at() == call_scanner::state::failed; }
  // What was taken, where nobody has been told of it as a call.
  [[nodiscard]] std::optional<std::string> untold() const {
    return told_ ? std::nullopt : std::optional(scanner_.raw());
  }

 private:
  call_scanner scanner_;
  bool told_ = false;
};

// Content, white space around calls aside.
class content_writer {
 public:
  void push(std::string_view text, answer_pieces& out) {
    const std::size_t end = text.find_last_not_of(" \n\r\t");
    if (end == std::string_view::npos) {
      space_ += text;
      return;
    }
    append_piece(out, kind::content, std::exchange(space_, {}));
    append_piece(out, kind::content, text.substr(0, end + 1));
    space_ = text.substr(end + 1);
  }
  void drop_space() { space_.clear(); }
  void finish(answer_pieces& out) { append_piece(out, kind::content, std::exchange(space_, {})); }

 private:
  std::string space_;
};

// Text in which a marker opens calls. A format says what follows the marker.
class marked_parser : public answer_parser {
 public:
  marked_parser(std::string_view marker, std::size_t calls_max)
      : calls_(calls_max), marker_(marker) {}

  void push(std::string_view text, answer_pieces& out) final {
    held_ += text;
    for (bool moved = true; moved;) moved = in_calls_ ? step_in_calls(out) : step_in_content(out);
  }

  void finish(answer_pieces& out) final {
    if (in_calls_) end_calls(out);
    content_.push(std::exchange(held_, {}), out);
    if (calls_.any()) content_.drop_space();
    content_.finish(out);
  }

 protected:
  // Takes from held_ what it can; false: more text is needed. Sets in_calls_ to false at the end.
  virtual bool step_in_calls(answer_pieces& out) = 0;
  // The text ends within calls: what is not told of goes back into held_.
  virtual void end_calls(answer_pieces& out) = 0;

  [[nodiscard]] std::string_view marker() const noexcept { return marker_; }
  void skip_space() { held_.erase(0, std::min(held_.find_first_not_of(" \n\r\t"), held_.size())); }
  // What was taken for a call is content, its marker too.
  void leave_as_content(const std::string& untold, answer_pieces& out) {
    in_calls_ = false;
    content_.push(std::string(marker_) + untold, out);
  }

  std::string held_;
  bool in_calls_ = false;
  call_writer calls_;

 private:
  bool step_in_content(answer_pieces& out) {
    const std::size_t at = held_.find(marker_);
    if (at == std::string::npos) {
      const std::size_t certain = held_.size() - begun_marker(held_, marker_);
      content_.push(std::string_view(held_).substr(0, certain), out);
      held_.erase(0, certain);
      return false;
    }
    content_.push(std::string_view(held_).substr(0, at), out);
    content_.drop_space();
    held_.erase(0, at + marker_.size());
    in_calls_ = true;
    return true;
  }

  const std::string_view marker_;
  content_writer content_;
};

class hermes_parser final : public marked_parser {
 public:
  explicit hermes_parser(std::size_t calls_max) : marked_parser("<tool_call>", calls_max) {}

 private:
  bool step_in_calls(answer_pieces& out) override {
    if (!call_) call_.emplace();
    if (!call_->done()) {
      held_.erase(0, call_->push(held_, calls_, out));
      if (call_->failed()) {
        in_calls_ = false;
        if (const auto untold = call_->untold()) leave_as_content(*untold, out);
        call_.reset();
        return true;
      }
      if (!call_->done()) return false;
    }
    constexpr std::string_view close = "</tool_call>";
    skip_space();
    if (held_.size() < close.size() && close.starts_with(held_)) return false;
    if (held_.starts_with(close)) held_.erase(0, close.size());
    call_.reset();
    in_calls_ = false;
    return true;
  }
  void end_calls(answer_pieces&) override {
    if (call_ && call_->done()) {
      held_.clear();  // a part of the closing tag
    } else if (!call_ || call_->untold()) {
      held_ = std::string(marker()) + (call_ ? *call_->untold() : "") + held_;
    }
  }

  std::optional<call_reader> call_;
};

// Where an object ends.
struct object_end {
  int depth = 0;
  bool in_string = false;
  bool escaped = false;
  bool ended = false;
  void take(char c) {
    if (in_string) {
      in_string = escaped || c != '"';
      escaped = !escaped && c == '\\';
      return;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') ended = --depth == 0;
  }
};

class mistral_parser final : public marked_parser {
 public:
  explicit mistral_parser(std::size_t calls_max) : marked_parser("[TOOL_CALLS]", calls_max) {}

 private:
  bool step_in_calls(answer_pieces& out) override {
    if (call_) return step_in_call(out);
    if (arguments_) return step_in_arguments(out);
    skip_space();
    if (held_.empty()) return false;
    if (!in_list_ && held_.front() == '[' && !could_be(marker())) {
      in_list_ = true;
      held_.erase(0, 1);
      return true;
    }
    if (in_list_) return step_in_list();
    return step_to_arguments(out);
  }

  [[nodiscard]] bool could_be(std::string_view other) const {
    return held_.starts_with(other) ||
           (held_.size() < other.size() && other.starts_with(held_) && held_.size() > 1);
  }

  bool step_in_list() {
    if (held_.front() == ',') {
      held_.erase(0, 1);
      return true;
    }
    if (held_.front() == '{') {
      call_.emplace();
      return true;
    }
    if (held_.front() == ']') held_.erase(0, 1);
    in_list_ = in_calls_ = false;
    return true;
  }

  bool step_in_call(answer_pieces& out) {
    held_.erase(0, call_->push(held_, calls_, out));
    if (call_->failed()) {
      in_list_ = in_calls_ = false;
      if (const auto untold = call_->untold()) leave_as_content("[" + *untold, out);
      call_.reset();
      return true;
    }
    if (!call_->done()) return false;
    call_.reset();
    return true;
  }

  // name{...}, name[ARGS]{...}, name[CALL_ID]id[ARGS]{...}
  bool step_to_arguments(answer_pieces& out) {
    const std::size_t end = held_.find('{');
    if (end == std::string::npos) return false;
    std::string name = held_.substr(0, held_.find_first_of("[{"));
    while (!name.empty() && is_white_space(name.back())) name.pop_back();
    if (name.empty()) {
      leave_as_content(std::exchange(held_, {}), out);
      return true;
    }
    held_.erase(0, end);
    calls_.begin(name, out);
    arguments_.emplace();
    return true;
  }

  bool step_in_arguments(answer_pieces& out) {
    std::size_t taken = 0;
    while (taken < held_.size() && !arguments_->ended) arguments_->take(held_[taken++]);
    calls_.arguments(std::string_view(held_).substr(0, taken), out);
    held_.erase(0, taken);
    if (!arguments_->ended) return false;
    arguments_.reset();
    in_calls_ = false;
    return true;
  }

  void end_calls(answer_pieces&) override {
    if (call_ && call_->untold()) {
      held_ = std::string(marker()) + "[" + *call_->untold() + held_;
    } else if (!call_ && !arguments_ && !in_list_) {
      held_ = std::string(marker()) + held_;
    }
  }

  bool in_list_ = false;
  std::optional<call_reader> call_;
  std::optional<object_end> arguments_;
};

// The answer is calls from its first character on, separated by semicolons, or it is content.
// `list`: [{...}, {...}] instead.
class whole_parser final : public answer_parser {
 public:
  whole_parser(std::size_t calls_max, bool list) : calls_(calls_max), list_(list) {}

  void push(std::string_view text, answer_pieces& out) override {
    if (content_) return append_piece(out, kind::content, text);
    held_ += text;
    for (bool moved = true; moved && !content_;) moved = step(out);
  }
  void finish(answer_pieces& out) override {
    if (content_) return;
    if (call_ && !call_->done()) held_ = call_->untold().value_or("") + held_;
    if (!calls_.any()) append_piece(out, kind::content, before_ + held_);
  }

 private:
  bool step(answer_pieces& out) {
    if (call_) {
      held_.erase(0, call_->push(held_, calls_, out));
      if (call_->failed()) return give_up(call_->untold().value_or(""), out);
      if (!call_->done()) return false;
      call_.reset();
      return true;
    }
    constexpr std::string_view tag = "<|python_tag|>";
    const std::size_t begin = held_.find_first_not_of(list_ ? " \n\r\t[,]" : " \n\r\t;");
    if (begin == std::string::npos) return false;
    if (held_[begin] == '{') {
      before_ += held_.substr(0, begin);
      held_.erase(0, begin);
      call_.emplace();
      return true;
    }
    const std::string_view rest = std::string_view(held_).substr(begin);
    if (rest.size() < tag.size() && tag.starts_with(rest)) return false;
    if (rest.starts_with(tag)) {
      held_.erase(0, begin + tag.size());
      return true;
    }
    return give_up({}, out);
  }

  // Behind a call nothing else counts.
  bool give_up(const std::string& untold, answer_pieces& out) {
    content_ = !calls_.any();
    if (content_) append_piece(out, kind::content, before_ + untold + held_);
    held_.clear();
    call_.reset();
    return false;
  }

  call_writer calls_;
  const bool list_;
  bool content_ = false;
  std::string before_;
  std::string held_;
  std::optional<call_reader> call_;
};

// The answer is the arguments of a function that the request names.
class named_parser final : public answer_parser {
 public:
  explicit named_parser(std::string function) : function_(std::move(function)) {}

  void push(std::string_view text, answer_pieces& out) override {
    if (!text.empty() && !begun_) append_piece(out, kind::call, function_);
    begun_ = begun_ || !text.empty();
    append_piece(out, kind::arguments, text);
  }
  void finish(answer_pieces&) override {}

 private:
  const std::string function_;
  bool begun_ = false;
};

}  // namespace

std::unique_ptr<answer_parser> make_tool_parser(const answer_form& form) {
  if (!form.function.empty()) return std::make_unique<named_parser>(form.function);
  if (form.list_of_calls) return std::make_unique<whole_parser>(form.calls_max, true);
  switch (form.tools) {
    case tool_format::none:
      return nullptr;
    case tool_format::hermes:
      return std::make_unique<hermes_parser>(form.calls_max);
    case tool_format::llama3_json:
      return std::make_unique<whole_parser>(form.calls_max, false);
    case tool_format::mistral:
      return std::make_unique<mistral_parser>(form.calls_max);
  }
  return nullptr;
}

}  // namespace troupe::serving
