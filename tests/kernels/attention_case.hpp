// One attention problem for the tests: seeded contents, a paged cache with poison wherever no query
// may look, and comparisons. Contents depend on (seed, sequence, position, head, dimension) alone,
// so that the same problem can be cut into chunks or placed in other blocks.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "kernels/attention/attention.hpp"

namespace troupe::kernels::attention_testing {

[[nodiscard]] inline std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

struct chunk {
  std::int64_t first_position = 0;
  std::int64_t rows = 0;
};

struct attention_case {
  std::int64_t kv_heads = 2;
  std::int64_t group = 2;  // query heads of a cache head
  std::int64_t head_dim = 32;
  std::vector<chunk> chunks{{0, 17}};  // one a sequence
  std::optional<std::int64_t> window = std::nullopt;
  dtype cache = dtype::bfloat16;
  dtype output = dtype::float32;
  float query_size = 1.0F;        // queries are uniform in +-query_size
  bool interleave_heads = false;  // query head h reads cache head h % kv_heads
  std::uint64_t seed = 1;
  std::uint64_t placement = 1;  // which cache blocks a sequence gets
  std::int64_t query_padding = 0;
  int threads = 1;

  [[nodiscard]] std::int64_t heads() const { return kv_heads * group; }
  [[nodiscard]] std::string describe() const {
    std::string text = "kv_heads " + std::to_string(kv_heads) + " group " + std::to_string(group) +
                       " head_dim " + std::to_string(head_dim) + " window " +
                       std::to_string(window.value_or(-1)) + " cache " +
                       std::string(to_string(cache)) + " seed " + std::to_string(seed);
    for (const chunk& c : chunks) {
      text += " [" + std::to_string(c.first_position) + "+" + std::to_string(c.rows) + ")";
    }
    return text;
  }
};

// Uniform in [-1, 1), exact in bfloat16.
[[nodiscard]] inline float content(std::uint64_t seed, std::uint64_t kind, std::int64_t sequence,
                                   std::int64_t position, std::int64_t index) {
  std::uint64_t h = mix(seed * 4 + kind);
  h = mix(h ^ static_cast<std::uint64_t>(sequence));
  h = mix(h ^ static_cast<std::uint64_t>(position));
  h = mix(h ^ static_cast<std::uint64_t>(index));
  return static_cast<float>(static_cast<int>(h % 256) - 128) / 128.0F;
}

// Element `index` of an output as a number.
[[nodiscard]] inline float value_at(const std::vector<std::byte>& bytes, std::size_t index,
                                    dtype type) {
  std::uint32_t bits = 0;
  if (type == dtype::float32) {
    std::memcpy(&bits, bytes.data() + index * 4, 4);
  } else {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes.data() + index * 2, 2);
    bits = std::uint32_t{half} << 16;
  }
  return std::bit_cast<float>(bits);
}

class attention_problem {
 public:
  explicit attention_problem(const attention_case& of) : case_(of) {
    place_sequences();
    fill_cache();
    fill_queries();
  }
  attention_problem(const attention_problem&) = delete;
  attention_problem& operator=(const attention_problem&) = delete;

  [[nodiscard]] attention_args args() {
    const std::int64_t columns = case_.heads() * case_.head_dim;
    tensor_view query = matrix_view(queries_.data(), rows_, columns);
    query.row_stride += case_.query_padding;
    output_.assign(
        static_cast<std::size_t>(rows_ * (columns + case_.query_padding)) * size_of(case_.output),
        std::byte{0x7F});
    tensor_view output{{device_kind::cpu, output_.data()},
                       case_.output,
                       {rows_, columns, 1},
                       columns + case_.query_padding};
    return {.query = as_heads(query, case_.head_dim),
            .cache = {.keys = {device_kind::cpu, keys_.data()},
                      .values = {device_kind::cpu, values_.data()},
                      .type = case_.cache,
                      .heads = case_.kv_heads,
                      .head_dim = case_.head_dim,
                      .blocks = blocks_},
            .kv_head_of = kv_head_of_,
            .sequences = sequences_,
            .scale = 1.0F / std::sqrt(static_cast<float>(case_.head_dim)),
            .window = case_.window,
            .output = as_heads(output, case_.head_dim)};
  }

  // Output rows of sequence `index`, [rows][heads * head_dim], without padding.
  [[nodiscard]] std::vector<std::byte> output_of(std::size_t index) const {
    const auto width =
        static_cast<std::size_t>(case_.heads() * case_.head_dim) * size_of(case_.output);
    const auto stride =
        width + static_cast<std::size_t>(case_.query_padding) * size_of(case_.output);
    std::vector<std::byte> rows;
    const sequence_rows& sequence = sequences_[index];
    for (std::int64_t row = 0; row < sequence.rows; ++row) {
      const auto* from =
          output_.data() + static_cast<std::size_t>(sequence.first_row + row) * stride;
      rows.insert(rows.end(), from, from + width);
    }
    return rows;
  }

  std::vector<std::byte> run(instruction_path path) {
    thread_pool pool({.threads = case_.threads});
    attention(path, pool, args());
    std::vector<std::byte> all;
    for (std::size_t i = 0; i < sequences_.size(); ++i) {
      const std::vector<std::byte> rows = output_of(i);
      all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
  }

  // Overwrites K and V of one position with `bits` (of the cache's type).
  void overwrite(std::size_t sequence, std::int64_t position, std::uint32_t bits) {
    for (std::int64_t head = 0; head < case_.kv_heads; ++head) {
      for (std::int64_t d = 0; d < case_.head_dim; ++d) {
        const std::int64_t at = element(sequence, head, position) + d;
        put(keys_, at, bits);
        put(values_, at, bits);
      }
    }
  }

  [[nodiscard]] const std::vector<sequence_rows>& sequences() const { return sequences_; }

 private:
  [[nodiscard]] std::int64_t first_seen(const chunk& c) const {
    return case_.window ? std::max<std::int64_t>(0, c.first_position - *case_.window + 1) : 0;
  }

  void place_sequences() {
    for (std::int64_t h = 0; h < case_.heads(); ++h) {
      kv_head_of_.push_back(
          static_cast<std::int32_t>(case_.interleave_heads ? h % case_.kv_heads : h / case_.group));
    }
    for (const chunk& c : case_.chunks) {
      blocks_ += (c.first_position + c.rows + kv_block_tokens - 1) / kv_block_tokens;
    }
    blocks_ += 3;
    std::vector<std::int32_t> order(static_cast<std::size_t>(blocks_));
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[mix(case_.placement * 1000 + i) % i]);
    }
    std::size_t next = 0;
    for (const chunk& c : case_.chunks) {
      std::vector<std::int32_t> table;
      const std::int64_t end = c.first_position + c.rows;
      for (std::int64_t begin = 0; begin < end; begin += kv_block_tokens) {
        const bool outside = begin + kv_block_tokens <= first_seen(c);
        table.push_back(outside ? std::int32_t{-7} : order[next++]);
      }
      tables_.push_back(std::move(table));
    }
    std::int64_t index = 0;
    for (const chunk& c : case_.chunks) {
      sequences_.push_back({.first_row = rows_,
                            .rows = c.rows,
                            .first_position = c.first_position,
                            .block_table = tables_[static_cast<std::size_t>(index++)]});
      rows_ += c.rows;
    }
  }

  [[nodiscard]] std::int64_t element(std::size_t sequence, std::int64_t head,
                                     std::int64_t position) const {
    const std::int64_t block =
        tables_[sequence][static_cast<std::size_t>(position / kv_block_tokens)];
    return ((head * blocks_ + block) * kv_block_tokens + position % kv_block_tokens) *
           case_.head_dim;
  }

  void put(std::vector<std::byte>& to, std::int64_t index, std::uint32_t bits) const {
    const std::size_t size = size_of(case_.cache);
    std::memcpy(to.data() + static_cast<std::size_t>(index) * size, &bits, size);
  }
  void put(std::vector<std::byte>& to, std::int64_t index, float value) const {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    put(to, index, case_.cache == dtype::float32 ? bits : bits >> 16);
  }

  void fill_cache() {
    const std::int64_t elements = case_.kv_heads * blocks_ * kv_block_tokens * case_.head_dim;
    keys_.resize(static_cast<std::size_t>(elements) * size_of(case_.cache));
    values_.resize(keys_.size());
    // Poison: quiet NaN, signalling NaN, both infinities, the largest number.
    const bool wide = case_.cache == dtype::float32;
    const std::uint32_t poison[] = {0x7FC00000, 0x7FA00000, 0x7F800000, 0xFF800000, 0x7F7F0000};
    for (std::int64_t i = 0; i < elements; ++i) {
      const std::uint32_t bits = poison[mix(static_cast<std::uint64_t>(i)) % 5];
      put(keys_, i, wide ? bits : bits >> 16);
      put(values_, i, wide ? bits : bits >> 16);
    }
    for (std::size_t s = 0; s < case_.chunks.size(); ++s) {
      const chunk& c = case_.chunks[s];
      for (std::int64_t p = first_seen(c); p < c.first_position + c.rows; ++p) {
        for (std::int64_t h = 0; h < case_.kv_heads; ++h) {
          for (std::int64_t d = 0; d < case_.head_dim; ++d) {
            const auto id = static_cast<std::int64_t>(s);
            const std::int64_t index = h * case_.head_dim + d;
            put(keys_, element(s, h, p) + d, content(case_.seed, 1, id, p, index));
            put(values_, element(s, h, p) + d, content(case_.seed, 2, id, p, index));
          }
        }
      }
    }
  }

  void fill_queries() {
    const std::int64_t columns = case_.heads() * case_.head_dim;
    queries_.assign(static_cast<std::size_t>(rows_ * (columns + case_.query_padding)),
                    std::numeric_limits<float>::quiet_NaN());
    for (std::size_t s = 0; s < case_.chunks.size(); ++s) {
      const chunk& c = case_.chunks[s];
      for (std::int64_t r = 0; r < c.rows; ++r) {
        for (std::int64_t i = 0; i < columns; ++i) {
          // Not exact in bfloat16: a rounding of queries must show.
          const auto id = static_cast<std::int64_t>(s);
          const float fine = content(case_.seed, 0, id, c.first_position + r, i) +
                             content(case_.seed, 3, id, c.first_position + r, i) / 512.0F;
          const std::int64_t row = sequences_[s].first_row + r;
          queries_[static_cast<std::size_t>(row * (columns + case_.query_padding) + i)] =
              fine * case_.query_size;
        }
      }
    }
  }

  attention_case case_;
  std::int64_t rows_ = 0;
  std::int64_t blocks_ = 0;
  std::vector<std::int32_t> kv_head_of_;
  std::vector<std::vector<std::int32_t>> tables_;
  std::vector<sequence_rows> sequences_;
  std::vector<std::byte> keys_;
  std::vector<std::byte> values_;
  std::vector<float> queries_;
  std::vector<std::byte> output_;
};

[[nodiscard]] inline std::vector<std::byte> run_case(const attention_case& of,
                                                     instruction_path path) {
  return attention_problem(of).run(path);
}

}  // namespace troupe::kernels::attention_testing
