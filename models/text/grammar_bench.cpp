// What a mask costs: microseconds for each token of random answers that follow a JSON schema, by
// kind of grammar and for a vocabulary as large as a model's.
//
//   text_bench [FOLDER]      FOLDER: a tokenizer.json to use; else 131,072 made tokens
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/text/grammar.hpp"
#include "models/text/tokenizer.hpp"

namespace {

using namespace troupe;
using clock_type = std::chrono::steady_clock;
using kind = schemas::output_grammar::kind;

constexpr std::size_t made_tokens = 131'072;
constexpr std::size_t answers = 40;
constexpr std::size_t answer_tokens_max = 120;

constexpr const char* schema = R"({"type":"object","properties":{
  "name":{"type":"string","maxLength":40},"age":{"type":"integer","minimum":0,"maximum":150},
  "email":{"type":"string","format":"email"},"tags":{"type":"array","items":{"type":"string"}},
  "kind":{"enum":["red","green","blue"]},
  "address":{"type":"object","properties":{"street":{"type":"string"},"zip":{"type":"string",
    "pattern":"^[0-9]{5}$"}},"required":["street","zip"],"additionalProperties":false}},
  "required":["name","age","email","kind","address"],"additionalProperties":false})";

// Every printable ASCII character and words of two to ten of them, as in a byte-level vocabulary.
std::string made_tokenizer() {
  std::set<std::string> pieces;
  std::string json = R"({"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,)"
                     R"("post_processor":null,"decoder":{"type":"ByteLevel",)"
                     R"("add_prefix_space":false,"trim_offsets":true,"use_regex":true},)"
                     R"("model":{"type":"WordLevel","unk_token":"!","vocab":{)";
  std::size_t id = 0;
  const auto add = [&](const std::string& piece) {
    if (!pieces.insert(piece).second) return;
    std::string quoted;
    for (const char c : piece)
      quoted += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
    json += fmt::format("{}\"{}\":{}", id == 0 ? "" : ",", quoted, id);
    ++id;
  };
  for (char c = '!'; c <= '~'; ++c) add(std::string(1, c));
  add("Ġ");
  std::mt19937 chance(1);
  while (id < made_tokens) {
    std::string word = chance() % 2 == 0 ? "Ġ" : "";
    if (chance() % 12 == 0) word += static_cast<char>('!' + chance() % 14);
    for (auto n = 2 + chance() % 8; n > 0; --n) {
      word += chance() % 15 == 0 ? static_cast<char>('0' + chance() % 10)
                                 : static_cast<char>('a' + chance() % 26);
    }
    add(word);
  }
  return json + "}}}";
}

double micros(clock_type::duration took) {
  return std::chrono::duration<double, std::micro>(took).count();
}

void print(const char* name, const char* what, std::vector<double> costs) {
  if (costs.empty()) return;
  std::sort(costs.begin(), costs.end());
  fmt::print("{:<12} {:<8} median {:8.1f} us   p99 {:8.1f} us   largest {:9.1f} us   of {}\n", name,
             what, costs[costs.size() / 2], costs[costs.size() * 99 / 100], costs.back(),
             costs.size());
}

// One of the allowed tokens, none where only the end is left.
std::int32_t draw(const std::vector<std::uint32_t>& mask, std::mt19937& chance) {
  std::vector<std::int32_t> allowed;
  for (std::size_t i = 0; i < mask.size() * 32; ++i) {
    if ((mask[i / 32] >> (i % 32) & 1U) != 0) allowed.push_back(static_cast<std::int32_t>(i));
  }
  return allowed.empty() ? -1 : allowed[chance() % allowed.size()];
}

int run(const text::tokenizer& tokens) {
  const std::int32_t vocab_size = tokens.token_count();
  auto begin = clock_type::now();
  const auto factory = text::grammar_factory::make(tokens, {.vocab_size = vocab_size});
  if (!factory) {
    fmt::print(stderr, "{}\n", factory.error().message);
    return EXIT_FAILURE;
  }
  fmt::print("{} tokens; the factory took {:.0f} ms\n", vocab_size,
             micros(clock_type::now() - begin) / 1000);
  const std::vector<std::pair<const char*, schemas::output_grammar>> grammars = {
      {"json_schema", {kind::json_schema, schema}},
      {"json_object", {kind::json_object, ""}},
      {"regex", {kind::regex, "([a-z]{1,12} ){3,30}[0-9]{4}"}},
      {"choice", {kind::choice, R"(["positive","negative","neutral"])"}}};
  for (const auto& [name, of] : grammars) {
    begin = clock_type::now();
    const auto compiled = factory->compile(of);
    if (!compiled) {
      fmt::print(stderr, "{}: {}\n", name, compiled.error().message);
      return EXIT_FAILURE;
    }
    std::vector<double> compile_cost = {micros(clock_type::now() - begin)};
    std::vector<double> starts;
    std::vector<double> masks;
    std::vector<double> accepts;
    std::vector<std::uint32_t> mask(text::mask_words(vocab_size));
    for (std::uint32_t seed = 0; seed < answers; ++seed) {
      std::mt19937 chance(seed);
      begin = clock_type::now();
      auto state = compiled->start();
      starts.push_back(micros(clock_type::now() - begin));
      for (std::size_t i = 0; state && i < answer_tokens_max && !state->finished(); ++i) {
        begin = clock_type::now();
        if (!state->mask(mask)) return EXIT_FAILURE;
        masks.push_back(micros(clock_type::now() - begin));
        const std::int32_t id = draw(mask, chance);
        begin = clock_type::now();
        if (id < 0 || !state->accept(id)) break;
        accepts.push_back(micros(clock_type::now() - begin));
      }
    }
    print(name, "compile", std::move(compile_cost));
    print(name, "start", std::move(starts));
    print(name, "mask", std::move(masks));
    print(name, "accept", std::move(accepts));
  }
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  const auto tokens = argc > 1 ? text::tokenizer::open(std::filesystem::path(argv[1]))
                               : text::tokenizer::from_json({.tokenizer_json = made_tokenizer()});
  if (!tokens) {
    fmt::print(stderr, "{}\n", tokens.error().message);
    return EXIT_FAILURE;
  }
  return run(*tokens);
}
