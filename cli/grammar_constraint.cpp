#include "cli/grammar_constraint.hpp"

#include <memory>
#include <utility>

namespace troupe::cli {
namespace {

class grammar_constraint final : public engine::token_constraint {
 public:
  explicit grammar_constraint(text::grammar_state state) : state_(std::move(state)) {}

  base::result<void> mask(std::span<std::uint32_t> words) override { return state_.mask(words); }
  base::result<void> accept(std::int32_t token_id) override { return state_.accept(token_id); }

 private:
  text::grammar_state state_;
};

}  // namespace

engine::constraint_maker constraints_of(text::grammar_cache* grammars) {
  if (grammars == nullptr) return {};
  return [grammars](const schemas::output_grammar& grammar)
             -> base::result<std::unique_ptr<engine::token_constraint>> {
    TROUPE_TRY(compiled, grammars->get(grammar));
    TROUPE_TRY(state, compiled->start());
    return std::unique_ptr<engine::token_constraint>(
        std::make_unique<grammar_constraint>(std::move(state)));
  };
}

}  // namespace troupe::cli
