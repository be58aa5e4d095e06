#include "serving/reasoning_parser.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "serving/marker.hpp"

namespace troupe::serving {
namespace {

constexpr std::string_view open_tag = "<think>";
constexpr std::string_view close_tag = "</think>";

class reasoning_parser final : public answer_parser {
 public:
  reasoning_parser(bool begins_open, std::unique_ptr<answer_parser> rest)
      : state_(begins_open ? state::thinking : state::before), rest_(std::move(rest)) {}

  void push(std::string_view text, answer_pieces& out) override {
    if (state_ == state::answering) return answer(text, out);
    held_ += text;
    if (state_ == state::before) look_for_begin(out);
    if (state_ == state::thinking) think(out);
  }

  void finish(answer_pieces& out) override {
    if (state_ == state::thinking) {
      append_piece(out, answer_piece::kind::reasoning, std::exchange(held_, {}));
    } else {
      answer(std::exchange(held_, {}), out);
    }
    if (rest_) rest_->finish(out);
  }

 private:
  enum class state : std::uint8_t { before, thinking, answering };

  // The tag counts at the very beginning only, white space before it aside.
  void look_for_begin(answer_pieces& out) {
    const std::size_t begin = held_.find_first_not_of(" \n\r\t");
    if (begin == std::string::npos) return;
    const std::string_view seen = std::string_view(held_).substr(begin);
    if (seen.size() < open_tag.size() && open_tag.starts_with(seen)) return;
    if (seen.starts_with(open_tag)) {
      state_ = state::thinking;
      held_.erase(0, begin + open_tag.size());
      drop_line_feed_ = true;
      return;
    }
    state_ = state::answering;
    answer(std::exchange(held_, {}), out);
  }

  void think(answer_pieces& out) {
    if (drop_line_feed_ && !held_.empty()) {
      drop_line_feed_ = false;
      if (held_.front() == '\n') held_.erase(0, 1);
    }
    const std::size_t end = held_.find(close_tag);
    if (end == std::string::npos) {
      // White space before the end belongs to the tags.
      std::size_t certain = held_.size() - begun_marker(held_, close_tag);
      while (certain > 0 && is_white_space(held_[certain - 1])) --certain;
      append_piece(out, answer_piece::kind::reasoning, held_.substr(0, certain));
      held_.erase(0, certain);
      return;
    }
    std::size_t certain = end;
    while (certain > 0 && is_white_space(held_[certain - 1])) --certain;
    append_piece(out, answer_piece::kind::reasoning, held_.substr(0, certain));
    state_ = state::answering;
    skip_space_ = true;
    answer(std::exchange(held_, {}).substr(end + close_tag.size()), out);
  }

  void answer(std::string_view text, answer_pieces& out) {
    if (skip_space_) {
      const std::size_t begin = text.find_first_not_of(" \n\r\t");
      if (begin == std::string_view::npos) return;
      text.remove_prefix(begin);
      skip_space_ = false;
    }
    if (rest_) return rest_->push(text, out);
    append_piece(out, answer_piece::kind::content, text);
  }

  state state_;
  bool drop_line_feed_ = false;
  bool skip_space_ = false;
  std::string held_;
  const std::unique_ptr<answer_parser> rest_;
};

}  // namespace

std::unique_ptr<answer_parser> make_reasoning_parser(const answer_form& form,
                                                     std::unique_ptr<answer_parser> rest) {
  const bool open = form.reasoning_open || form.reasoning == reasoning_format::deepseek_r1;
  return std::make_unique<reasoning_parser>(open, std::move(rest));
}

}  // namespace troupe::serving
