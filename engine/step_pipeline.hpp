// Runs steps on a thread of its own, so that the next one is planned while one runs.
//
// A plan that is there when the step before it ends begins at once. Steps end in the order in which
// they were handed in; at most `depth` are handed in and not taken out.
//
//   engine::step_pipeline steps(ranks);
//   steps.submit(planner.next(ranks.epoch()));
//   steps.submit(planner.next(ranks.epoch()));      // of "token of slot i of the step before"
//   TROUPE_TRY(result, steps.wait());               // of the first; the second runs
//   steps.provide({...});                           // what the second's rows wait for
#pragma once

#include <memory>
#include <vector>

#include "base/error.hpp"
#include "engine/executor.hpp"

namespace troupe::engine {

class step_pipeline {
 public:
  static constexpr int depth = 2;

  // Lifetime: the executor outlives the pipeline; nobody else runs steps on it. Its thread starts
  // with the first step.
  explicit step_pipeline(executor& ranks);
  step_pipeline(const step_pipeline&) = delete;
  step_pipeline& operator=(const step_pipeline&) = delete;
  // Waits for the step that runs; one that has not begun is dropped.
  ~step_pipeline();

  // The caller's thread, as all below. Fewer than `depth` steps are in it.
  void submit(step_plan plan);
  // The oldest step's tokens. At least one is in it.
  // Errors: those of the executor; after one every later step fails with it.
  [[nodiscard]] base::result<step_result> wait();
  // For the one step in it, whose rows have changes_follow; once.
  void provide(std::vector<schemas::logit_changes> changes);

 private:
  class impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace troupe::engine
