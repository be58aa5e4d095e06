// The gang's state as JSON, for the page and for people: GET /troupe/gang.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "actors/gang_service.hpp"
#include "serving/openai_server.hpp"

namespace troupe::serving {

inline constexpr std::array<actors::rank_state, 5> all_rank_states = {
    actors::rank_state::absent, actors::rank_state::loading, actors::rank_state::waiting,
    actors::rank_state::connecting, actors::rank_state::serving};

[[nodiscard]] std::string_view name_of(actors::rank_state state) noexcept;

[[nodiscard]] std::string gang_report(const actors::gang_status& gang, const served_model& model,
                                      bool draining);

}  // namespace troupe::serving
