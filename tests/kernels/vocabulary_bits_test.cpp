// A run's summary belongs to its logits and its row's parameters: the same bits whatever else is
// computed beside it.
#include "tests/kernels/vocabulary_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

const std::vector<std::int64_t> eight_runs{2'496,  4'992,  7'488,  9'984,
                                           12'480, 14'976, 17'472, 19'999};

void expect_same(const vocabulary_result& a, std::size_t a_place, const vocabulary_result& b,
                 std::size_t b_place, std::size_t candidates, const std::string& what) {
  ASSERT_TRUE(same_summary(a.summaries[a_place], b.summaries[b_place]))
      << what << "\n"
      << text_of(a.summaries[a_place]) << "\n"
      << text_of(b.summaries[b_place]);
  for (std::size_t i = 0; i < candidates; ++i) {
    ASSERT_TRUE(same_candidate(a.top[a_place * candidates + i], b.top[b_place * candidates + i]))
        << what << ", candidate " << i;
  }
}

TEST(SummariseVocabularyBits, DoNotDependOnRanks) {
  for (const instruction_path path : paths()) {
    vocabulary_case whole(3, eight_runs, 17);
    whole.logits.fill(71, 2.0);
    whole.sampling[2].temperature = 0.0F;
    const vocabulary_result expected = whole.run(path);
    for (const std::size_t owned : {1, 2, 4}) {  // runs of a rank
      for (std::size_t first = 0; first < 8; first += owned) {
        const std::int64_t begin = first == 0 ? 0 : eight_runs[first - 1];
        std::vector<std::int64_t> ends;
        for (std::size_t run = first; run < first + owned; ++run) {
          ends.push_back(eight_runs[run] - begin);
        }
        vocabulary_case part(3, ends, 17);
        part.sampling = whole.sampling;
        part.first_token_id = begin;
        for (std::int64_t row = 0; row < 3; ++row) {
          for (std::int64_t i = 0; i < ends.back(); ++i) {
            part.logits.at(row, i) = whole.logits.at(row, begin + i);
          }
        }
        const vocabulary_result got = part.run(path);
        for (std::size_t row = 0; row < 3; ++row) {
          for (std::size_t run = 0; run < owned; ++run) {
            expect_same(got, row * owned + run, expected, row * 8 + first + run, 17,
                        std::string(to_string(path)) + " run " + std::to_string(first + run));
          }
        }
      }
    }
  }
}

TEST(SummariseVocabularyBits, DoNotDependOnBatchOrThreads) {
  for (const instruction_path path : paths()) {
    vocabulary_case batch(17, eight_runs, 5);
    batch.logits.fill(72, 2.0);
    const vocabulary_result expected = batch.run(path, 1);
    for (const int threads : {2, 3}) {
      const vocabulary_result got = batch.run(path, threads);
      for (std::size_t place = 0; place < batch.places(); ++place) {
        expect_same(got, place, expected, place, 5, "threads " + std::to_string(threads));
      }
    }
    for (std::size_t row = 0; row < 17; ++row) {
      vocabulary_case alone(1, eight_runs, 5);
      alone.sampling = {batch.sampling[row]};
      for (std::int64_t i = 0; i < eight_runs.back(); ++i) {
        alone.logits.at(0, i) = batch.logits.at(static_cast<std::int64_t>(row), i);
      }
      const vocabulary_result got = alone.run(path, 2);
      for (std::size_t run = 0; run < 8; ++run) {
        expect_same(got, run, expected, row * 8 + run, 5, "row " + std::to_string(row));
      }
    }
  }
}

TEST(SummariseVocabularyBits, AreTheSameOnEveryPath) {
  vocabulary_case input(4, {0, 1, 40, 5'000, 19'999}, 30);
  input.logits.fill(73, 4.0);
  input.sampling[1].temperature = 0.0F;
  input.sampling[2].temperature = 1.0F;
  const auto available = paths();
  const vocabulary_result expected = input.run(available.front());
  for (const instruction_path path : available) {
    const vocabulary_result got = input.run(path);
    for (std::size_t place = 0; place < input.places(); ++place) {
      expect_same(got, place, expected, place, 30, std::string(to_string(path)));
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
