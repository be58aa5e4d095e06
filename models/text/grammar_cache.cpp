#include "models/text/grammar_cache.hpp"

#include <iterator>

namespace troupe::text {
namespace {

std::string key_of(const schemas::output_grammar& of) {
  std::string key(1, static_cast<char>(of.of));
  return key + of.text;
}

}  // namespace

std::optional<grammar_cache::entry> grammar_cache::find_key(const std::string& key) {
  if (const auto found = by_key_.find(key); found != by_key_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    return found->second->made;
  }
  if (const auto found = in_use_.find(key); found != in_use_.end()) {
    if (auto held = found->second.lock()) return entry(std::move(held));
  }
  return std::nullopt;
}

std::optional<grammar_cache::entry> grammar_cache::find(const schemas::output_grammar& of) {
  const std::lock_guard lock(mutex_);
  return find_key(key_of(of));
}

grammar_cache::entry grammar_cache::get(const schemas::output_grammar& of) {
  std::string key = key_of(of);
  {
    const std::lock_guard lock(mutex_);
    if (auto found = find_key(key)) return *std::move(found);
    ++compiled_;
  }
  auto compiled = factory_.compile(of);
  if (!compiled) {
    const bool passing = compiled.error().retryable;
    entry refused = tl::unexpected(std::move(compiled).error());
    return passing ? refused : insert(std::move(key), std::move(refused));
  }
  return insert(std::move(key), std::make_shared<const grammar>(*std::move(compiled)));
}

void grammar_cache::drop_last(std::list<item>& to) {
  item& last = recent_.back();
  text_bytes_ -= last.key.size();
  by_key_.erase(last.key);
  if (last.made && last.made->use_count() > 1) in_use_.emplace(last.key, *last.made);
  to.splice(to.begin(), recent_, std::prev(recent_.end()));
}

grammar_cache::entry grammar_cache::insert(std::string key, entry made) {
  // Freed after the lock: the last owner of a grammar takes down all of its tables.
  std::list<item> dropped;
  const std::lock_guard lock(mutex_);
  if (auto found = find_key(key)) return *std::move(found);
  std::erase_if(in_use_, [](const auto& held) { return held.second.expired(); });
  if (key.size() > bounds_.text_bytes_max || bounds_.grammars_max == 0) {
    if (made) in_use_.emplace(std::move(key), *made);
    return made;
  }
  while (recent_.size() >= bounds_.grammars_max ||
         text_bytes_ + key.size() > bounds_.text_bytes_max) {
    drop_last(dropped);
  }
  text_bytes_ += key.size();
  recent_.push_front({key, made});
  by_key_.emplace(std::move(key), recent_.begin());
  return made;
}

std::size_t grammar_cache::size() const {
  const std::lock_guard lock(mutex_);
  return recent_.size();
}

std::uint64_t grammar_cache::compiled() const {
  const std::lock_guard lock(mutex_);
  return compiled_;
}

}  // namespace troupe::text
