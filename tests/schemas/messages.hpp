// One message of every kind with every field set, so that a field that is not written or not read
// back shows.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "schemas/codec.hpp"

namespace troupe::schemas {

inline step_plan full_plan() {
  planned_rows prompt;
  prompt.sequence = {7};
  prompt.prompt_length = 3;
  prompt.token_ids = {1, 2, 3};
  prompt.block_tables = {{4, 5}, {-1, 6}};
  prompt.scored = scored_rows{.first_row = 1, .logprobs = 4, .token_ids = {3, 17}};
  planned_rows decode;
  decode.sequence = {8};
  decode.first_position = 40;
  decode.prompt_length = 40;
  decode.token_ids = {2147483647};
  decode.block_tables = {{0, 1, 2}};
  decode.sample = sample_request{
      .row = {.temperature = 0.75F, .seed = 0xFEDCBA9876543210U, .choice = 3, .token_index = 12},
      .top_p = 0.5F,
      .top_k = 40,
      .logprobs = 5,
      .min_p = 0.25F,
      .changes = logit_changes{.bias = {{3, 1.5F}, {4, -2.0F}},
                               .repetition_penalty = 1.25F,
                               .frequency_penalty = 0.5F,
                               .presence_penalty = -0.5F,
                               .counts = {{11, 0}, {12, 3}},
                               .forbidden = {2, 5},
                               .allowed = {0xFFFFFFFFU, 0x80000001U}},
      .changes_follow = true};
  decode.last_token_slot = 3;
  decode.stored = 41;
  decode.adapter_id = 0;
  decode.row_group = 2;
  decode.draft_token_ids = {9, 10};
  step_plan plan;
  plan.epoch = {0x0123456789ABCDEFU, 6};
  plan.step = 99;
  plan.sequences = {prompt, decode};
  plan.model_id = 1;
  return plan;
}

inline step_result full_result() {
  sampled_token token;
  token.sequence = {8};
  token.token_id = 42;
  token.logprob = -0.125F;
  token.top = {{42, -0.125F}, {7, -2.5F}};
  sampled_token broken;
  broken.sequence = {9};
  broken.finite = false;
  sampled_token stuck;
  stuck.sequence = {10};
  stuck.allowed = false;
  step_result result;
  result.tokens = {token, broken, stuck};
  token.token_id = 17;
  result.scored = {token};
  return result;
}

inline following_changes full_following_changes() {
  return {.step = 100,
          .rows = {*full_plan().sequences[1].sample->changes, logit_changes{.forbidden = {7}}}};
}

inline std::vector<std::pair<std::string, control_message>> control_messages() {
  const base::epoch_id epoch{0xAABBCCDDEEFF0011U, 3};
  join_request join;
  join.protocol = 1;
  join.build_id = "0.1.0+00ff";
  join.rank = {1};
  join.node = "node-b";
  join.layout = {.tensor_parallel_size = 2,
                 .pipeline_parallel_size = 4,
                 .max_model_len = 4096,
                 .max_num_seqs = 16,
                 .max_num_batched_tokens = 512,
                 .kv_blocks = 4000,
                 .block_size = 16,
                 .weights_dtype = "bfloat16",
                 .kv_cache_dtype = "float32",
                 .data_plane = "tls"};
  join.model_description_digest.fill(0x5A);
  join.instruction_paths = {"amx_bf16", "avx2"};
  join.kernel_version = 2;
  loaded share;
  share.share_digest.fill(0xC3);
  share.instruction_path = "avx2";
  std::vector<std::pair<std::string, control_message>> all;
  const auto add = [&](const char* name, decltype(control_message::body) body) {
    all.push_back({name, {.sender = {1}, .sequence = 5, .body = std::move(body)}});
  };
  add("join_request", join);
  add("welcome", welcome{.incarnation = 77, .instruction_path = "avx512"});
  add("refusal", refusal{"rank 1 differs in max_model_len: 4096, the leader has 8192"});
  add("loading_progress", loading_progress{.bytes = 5, .total_bytes = 10});
  add("loaded", share);
  add("prepare", prepare{epoch});
  add("prepared", prepared{.epoch = epoch, .address = {1, 2, 255}});
  add("connect", connect{.epoch = epoch, .addresses = {{1}, {}, {2, 3}}});
  add("connected", connected{epoch});
  add("epoch_ended", epoch_ended{.epoch = epoch, .reason = "rank 1 lost"});
  return all;
}

inline std::vector<std::pair<std::string, supervisor_message>> supervisor_messages() {
  const base::epoch_id epoch{5, 6};
  std::vector<std::pair<std::string, supervisor_message>> all;
  all.push_back({"control_plane_at", {control_plane_at{.host = "127.0.0.1", .port = 65535}}});
  all.push_back({"segment", {segment{epoch}}});
  all.push_back(
      {"rank_lost", {rank_lost{.rank = {3}, .cause = "killed by signal 9", .restarts = 2}}});
  all.push_back({"drain", {drain{.patience_ms = 100'000}}});
  all.push_back({"ping", {ping{.number = 11}}});
  all.push_back({"pong", {pong{.number = 12}}});
  all.push_back({"control_plane_listens", {control_plane_listens{.host = "::1", .port = 8472}}});
  all.push_back({"segment_wanted", {segment_wanted{.epoch = epoch, .ranks = 8}}});
  all.push_back({"phase_changed",
                 {phase_changed{
                     .phase = rank_phase::serving, .epoch = epoch, .detail = "in the plan loop"}}});
  all.push_back({"announce", {announce{.json = R"({"event":"ready"})"}}});
  all.push_back({"give_up", {give_up{.exit_code = 3, .reason = "refused"}}});
  all.push_back({"heartbeat",
                 {heartbeat{.protocol = 1,
                            .build_id = "0.1.0+00ff",
                            .node_rank = 1,
                            .nnodes = 2,
                            .number = 1'000'000}}});
  return all;
}

}  // namespace troupe::schemas
