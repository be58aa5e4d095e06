// The grammars that were compiled last, by their text: the thread that admits a request and the
// engine that starts its sequences (again, after a loss) get the same one.
//
// A grammar is found as long as anybody holds it, also when it was pushed out since.
// Any thread may call it. It holds nothing while it compiles: two threads that ask for the same new
// grammar at once compile it twice, and the first one's stays. A refusal is kept too, so that a
// client that repeats a slow grammar pays for it once.
//
//   text::grammar_cache grammars(*std::move(factory), {});
//   TROUPE_TRY(compiled, grammars.get({schemas::output_grammar::kind::regex, "[0-9]+"}));
//   TROUPE_TRY(state, compiled->start());
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "models/text/grammar.hpp"

namespace troupe::text {

struct grammar_cache_bounds {
  // Compiled, a grammar takes some 100 kB to 10 MB.
  std::size_t grammars_max = 64;
  // Of their texts together. A larger text than all of it is compiled each time.
  std::size_t text_bytes_max = std::size_t{1} << 20;
};

class grammar_cache {
 public:
  using entry = base::result<std::shared_ptr<const grammar>>;

  grammar_cache(grammar_factory factory, grammar_cache_bounds bounds)
      : factory_(std::move(factory)), bounds_(bounds) {}
  grammar_cache(const grammar_cache&) = delete;
  grammar_cache& operator=(const grammar_cache&) = delete;

  // Compiles it where it is not held.
  // Errors: as grammar_factory::compile.
  [[nodiscard]] entry get(const schemas::output_grammar& of);
  // Never compiles: nothing where it is not held.
  [[nodiscard]] std::optional<entry> find(const schemas::output_grammar& of);

  [[nodiscard]] std::size_t size() const;
  // How often get() had to compile.
  [[nodiscard]] std::uint64_t compiled() const;

 private:
  struct item {
    std::string key;
    entry made;
  };
  [[nodiscard]] std::optional<entry> find_key(const std::string& key);
  [[nodiscard]] entry insert(std::string key, entry made);
  void drop_last(std::list<item>& to);

  grammar_factory factory_;
  grammar_cache_bounds bounds_;
  mutable std::mutex mutex_;
  std::list<item> recent_;  // the last used first
  std::unordered_map<std::string, std::list<item>::iterator> by_key_;
  // Pushed out, but some request still holds it: who starts its sequence again finds it here.
  std::unordered_map<std::string, std::weak_ptr<const grammar>> in_use_;
  std::size_t text_bytes_ = 0;
  std::uint64_t compiled_ = 0;
};

}  // namespace troupe::text
