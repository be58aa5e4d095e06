// The embedded model behind an engine in this process: questions in, greedy answers out.
//
//   demo_chat chat({.tp_size = 2});
//   chat.answer("What is a gang?");
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "engine/thread_executor.hpp"
#include "models/demo/demo_folder.hpp"
#include "models/text/chat_template.hpp"
#include "models/text/tokenizer.hpp"

namespace troupe::models {

struct demo_shape {
  int tp_size = 1;
  kernels::dtype type = kernels::dtype::float32;
};

class demo_chat {
 public:
  explicit demo_chat(demo_shape shape)
      : files_(checkpoint::open(demo_folder()).value()),
        config_(read_config(demo_folder()).value()),
        tokens_(text::tokenizer::open(demo_folder()).value()),
        chat_(text::chat_template::open(demo_folder()).value()) {
    ranks_ = engine::thread_executor::start(
                 {.files = &files_,
                  .config = config_,
                  .tp_size = shape.tp_size,
                  .pp_size = 1,
                  .threads_per_rank = 1,
                  .profile = {.path = kernels::supported_paths(shape.type).front(),
                              .weights = shape.type,
                              .kv_cache = shape.type},
                  .kv_blocks = kv_blocks,
                  .max_num_batched_tokens = 512,
                  .max_num_seqs = 16,
                  .progress = {}})
                 .value();
    engine_ = std::make_unique<engine::engine>(
        *ranks_, engine::engine_options{.planner = {.max_num_batched_tokens = 512,
                                                    .max_num_seqs = 16,
                                                    .prefill_chunk = 512,
                                                    .blocks_per_group = kv_blocks,
                                                    .groups = kv_groups(config_)},
                                        .eos_token_ids = config_.eos_token_ids,
                                        .max_model_len = config_.max_position_embeddings,
                                        .vocab_size = config_.vocab_size});
  }

  struct reply {
    std::string text;
    std::vector<std::int32_t> token_ids;
    engine::finish_reason finish = engine::finish_reason::length;
  };

  [[nodiscard]] reply answer(const std::string& question) {
    const nlohmann::json messages = {{{"role", "user"}, {"content", question}}};
    return complete(chat_.render(messages.dump(), {.add_generation_prompt = true}).value());
  }

  // Greedy. The prompt may hold control tokens.
  [[nodiscard]] reply complete(const std::string& prompt) {
    engine::sequence_log log;
    log.prompt_ids = tokens_.encode(prompt, {}).value();
    log.params.temperature = 0.0F;
    log.params.max_tokens = 160;
    EXPECT_TRUE(engine_->add(std::move(log)));
    reply made;
    while (!engine_->idle()) {
      const auto events = engine_->step();
      if (!events) {
        ADD_FAILURE() << events.error().message;
        break;
      }
      for (const engine::engine_event& event : *events) {
        made.token_ids.push_back(event.token.token_id);
        if (event.finished) made.finish = *event.finished;
      }
    }
    made.text = tokens_.decode(made.token_ids, {}).value();
    return made;
  }

 private:
  static constexpr std::int64_t kv_blocks = 256;
  checkpoint files_;
  model_config config_;
  text::tokenizer tokens_;
  text::chat_template chat_;
  std::unique_ptr<engine::thread_executor> ranks_;
  std::unique_ptr<engine::engine> engine_;
};

}  // namespace troupe::models
