#include "supervisor/stand_in.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "supervisor/json_text.hpp"

namespace troupe::supervisor {
namespace {

std::string answer(std::string_view status, std::string_view headers, const std::string& body,
                   bool with_body) {
  return fmt::format(
      "HTTP/1.1 {}\r\nConnection: close\r\nCache-Control: no-store\r\n{}Content-Length: {}\r\n"
      "\r\n{}",
      status, headers, body.size(), with_body ? body : std::string());
}

}  // namespace

std::string stand_in_answer(std::string_view request, std::string_view reason) {
  const std::string_view line = request.substr(0, request.find("\r\n"));
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || last == first ||
      !line.substr(last).starts_with(" HTTP/")) {
    return answer("400 Bad Request", "", "", true);
  }
  const std::string_view method = line.substr(0, first);
  std::string_view path = line.substr(first + 1, last - first - 1);
  path = path.substr(0, path.find('?'));
  const bool with_body = method != "HEAD";
  if (path == "/health") return answer("200 OK", "", "", with_body);
  const std::string body = fmt::format(
      R"({{"error":{{"message":{},"type":"server_error","param":null,"code":"unavailable"}}}})",
      json_text(fmt::format("{}; try again", reason)));
  return answer("503 Service Unavailable", "Retry-After: 1\r\nContent-Type: application/json\r\n",
                body, with_body);
}

stand_in::stand_in(int listening) : listening_(listening) {
  // Rank 0 may take a connection between poll() and accept(): that must not block.
  if (listening >= 0) ::fcntl(listening, F_SETFL, ::fcntl(listening, F_GETFL) | O_NONBLOCK);
}

void stand_in::set(bool on, std::string reason) {
  on_ = on && listening_ >= 0;
  reason_ = std::move(reason);
}

void stand_in::watch(poll_set& polls) {
  if (on_ && clients_.size() < connections_max) {
    polls.add(listening_, POLLIN, [this](short) { accept(); });
  }
  for (const auto& [number, one] : clients_) {
    polls.add(one.socket.get(), POLLIN, [this, number = number](short) { read(number); });
  }
}

void stand_in::accept() {
  while (on_ && clients_.size() < connections_max) {
    base::fd socket(::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) return;
    client one{.socket = std::move(socket), .due = base::steady_now() + patience, .request = {}};
    clients_.emplace(next_number_++, std::move(one));
  }
}

void stand_in::read(std::uint64_t number) {
  const auto at = clients_.find(number);
  if (at == clients_.end()) return;
  client& one = at->second;
  std::array<char, 4096> piece{};
  const ssize_t length = ::recv(one.socket.get(), piece.data(), piece.size(), MSG_DONTWAIT);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) {
    clients_.erase(at);
    return;
  }
  if (one.answered) return;  // the rest of a body: closing over it would reset the answer away
  one.request.append(piece.data(), static_cast<std::size_t>(length));
  const bool whole = one.request.find("\r\n\r\n") != std::string::npos;
  if (!whole && one.request.size() < request_bytes_max) return;
  // A new socket's buffer takes the few hundred bytes at once.
  const std::string text = stand_in_answer(whole ? one.request : "", reason_);
  ::send(one.socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  ::shutdown(one.socket.get(), SHUT_WR);
  one.answered = true;
  one.request.clear();
}

void stand_in::expire(base::steady_time now) {
  std::erase_if(clients_, [&](const auto& one) { return now >= one.second.due; });
}

std::optional<base::steady_time> stand_in::next_due() const {
  std::optional<base::steady_time> due;
  for (const auto& [number, one] : clients_) {
    due = std::min(due.value_or(base::steady_time::max()), one.due);
  }
  return due;
}

}  // namespace troupe::supervisor
