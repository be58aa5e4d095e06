// The head of an answer as callers see it, from what a parser of HTTP has read.
#pragma once

#include <string>

#include "net/http_client.hpp"
#include "net/http_syntax.hpp"

namespace troupe::net {

// `parsed`: a header of Boost.Beast, which no header of this project includes.
template <class Header>
[[nodiscard]] http_reply head_of(const Header& parsed) {
  http_reply reply;
  reply.status = static_cast<int>(parsed.result_int());
  for (const auto& field : parsed) {
    const auto name = field.name_string();
    const auto value = field.value();
    reply.headers.emplace_back(lower({name.data(), name.size()}),
                               std::string(value.data(), value.size()));
  }
  return reply;
}

}  // namespace troupe::net
