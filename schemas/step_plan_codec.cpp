#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "schemas/codec.hpp"
#include "schemas/step_plan.capnp.h"
#include "schemas/wire_message.hpp"

namespace troupe::schemas {
namespace {

using std::size_t;

unsigned list_size(size_t size) {
  TROUPE_CHECK(size < (1U << 29));  // what a list pointer can say
  return static_cast<unsigned>(size);
}

void write_list(capnp::List<std::int32_t>::Builder list, const std::vector<std::int32_t>& values) {
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, values[i]);
}

std::vector<std::int32_t> read_list(capnp::List<std::int32_t>::Reader list) {
  std::vector<std::int32_t> values;
  values.reserve(list.size());
  for (const std::int32_t value : list) values.push_back(value);
  return values;
}

// A group of {none, id}.
template <class Group>
std::optional<std::uint32_t> read_optional(const Group& group) {
  return group.isId() ? std::optional(group.getId()) : std::nullopt;
}
template <class Group>
void write_optional(Group group, std::optional<std::uint32_t> value) {
  if (value) group.setId(*value);
}

void write_changes(wire::LogitChanges::Builder out, const logit_changes& changes) {
  auto bias = out.initBias(list_size(changes.bias.size()));
  for (unsigned i = 0; i < bias.size(); ++i) {
    bias[i].setTokenId(changes.bias[i].token_id);
    bias[i].setBias(changes.bias[i].bias);
  }
  out.setRepetitionPenalty(changes.repetition_penalty);
  out.setFrequencyPenalty(changes.frequency_penalty);
  out.setPresencePenalty(changes.presence_penalty);
  auto counts = out.initCounts(list_size(changes.counts.size()));
  for (unsigned i = 0; i < counts.size(); ++i) {
    counts[i].setTokenId(changes.counts[i].token_id);
    counts[i].setInAnswer(changes.counts[i].in_answer);
  }
  write_list(out.initForbidden(list_size(changes.forbidden.size())), changes.forbidden);
  auto allowed = out.initAllowed(list_size(changes.allowed.size()));
  for (unsigned i = 0; i < allowed.size(); ++i) allowed.set(i, changes.allowed[i]);
}

float finite_number(float value, const char* field) {
  if (!std::isfinite(value)) refuse_field(field);
  return value;
}

logit_changes read_changes(wire::LogitChanges::Reader in) {
  logit_changes changes;
  for (const auto bias : in.getBias()) {
    changes.bias.push_back({bias.getTokenId(), finite_number(bias.getBias(), "bias")});
  }
  changes.repetition_penalty = finite_number(in.getRepetitionPenalty(), "repetition_penalty");
  if (changes.repetition_penalty <= 0.0F) refuse_field("repetition_penalty");
  changes.frequency_penalty = finite_number(in.getFrequencyPenalty(), "frequency_penalty");
  changes.presence_penalty = finite_number(in.getPresencePenalty(), "presence_penalty");
  for (const auto count : in.getCounts()) {
    if (count.getInAnswer() < 0) refuse_field("counts");
    changes.counts.push_back({count.getTokenId(), count.getInAnswer()});
  }
  changes.forbidden = read_list(in.getForbidden());
  changes.allowed.reserve(in.getAllowed().size());
  for (const std::uint32_t word : in.getAllowed()) changes.allowed.push_back(word);
  return changes;
}

void write_draw(wire::Draw::Builder out, const sample_request& request) {
  out.setTemperature(request.row.temperature);
  out.setSeed(request.row.seed);
  out.setChoice(request.row.choice);
  out.setTokenIndex(request.row.token_index);
  out.setTopP(request.top_p);
  out.setTopK(request.top_k);
  out.setLogprobs(request.logprobs);
  out.setMinP(request.min_p);
  if (request.changes) write_changes(out.initChanges(), *request.changes);
  out.setChangesFollow(request.changes_follow);
}

sample_request read_draw(wire::Draw::Reader in) {
  const float temperature = in.getTemperature();
  const float top_p = in.getTopP();
  if (!(temperature >= 0.0F) || !std::isfinite(temperature)) refuse_field("temperature");
  if (!(top_p > 0.0F && top_p <= 1.0F)) refuse_field("top_p");
  if (in.getTopK() < 0) refuse_field("top_k");
  if (in.getLogprobs() < -1) refuse_field("logprobs");
  if (!(in.getMinP() >= 0.0F && in.getMinP() <= 1.0F)) refuse_field("min_p");
  std::optional<logit_changes> changes;
  if (in.hasChanges()) changes = read_changes(in.getChanges());
  return {.row = {.temperature = temperature,
                  .seed = in.getSeed(),
                  .choice = in.getChoice(),
                  .token_index = in.getTokenIndex()},
          .top_p = top_p,
          .top_k = in.getTopK(),
          .logprobs = in.getLogprobs(),
          .min_p = in.getMinP(),
          .changes = std::move(changes),
          .changes_follow = in.getChangesFollow()};
}

void write_rows(wire::PlannedRows::Builder out, const planned_rows& rows) {
  out.setSequence(rows.sequence.value);
  out.setFirstPosition(rows.first_position);
  out.setPromptLength(rows.prompt_length);
  out.setStored(rows.stored);
  if (rows.last_token_slot) out.getLastToken().setSlot(*rows.last_token_slot);
  write_list(out.initTokenIds(list_size(rows.token_ids.size())), rows.token_ids);
  auto tables = out.initBlockTables(list_size(rows.block_tables.size()));
  for (unsigned i = 0; i < tables.size(); ++i) {
    write_list(tables.init(i, list_size(rows.block_tables[i].size())), rows.block_tables[i]);
  }
  if (rows.sample) write_draw(out.getSample().initDraw(), *rows.sample);
  if (rows.scored) {
    auto scored = out.initScored();
    scored.setFirstRow(rows.scored->first_row);
    scored.setLogprobs(rows.scored->logprobs);
    write_list(scored.initTokenIds(list_size(rows.scored->token_ids.size())),
               rows.scored->token_ids);
  }
  write_optional(out.getAdapter(), rows.adapter_id);
  write_optional(out.getRowGroup(), rows.row_group);
  if (!rows.draft_token_ids.empty()) {
    write_list(out.initDraftTokenIds(list_size(rows.draft_token_ids.size())), rows.draft_token_ids);
  }
}

scored_rows read_scored(wire::ScoredRows::Reader in, size_t rows) {
  scored_rows scored{.first_row = in.getFirstRow(),
                     .logprobs = in.getLogprobs(),
                     .token_ids = read_list(in.getTokenIds())};
  const bool inside = scored.first_row >= 0 && !scored.token_ids.empty() &&
                      scored.token_ids.size() <= rows &&
                      static_cast<size_t>(scored.first_row) <= rows - scored.token_ids.size();
  if (!inside) refuse_field("scored");
  if (scored.logprobs < 0) refuse_field("logprobs");
  return scored;
}

planned_rows read_rows(wire::PlannedRows::Reader in) {
  planned_rows rows{.sequence = {in.getSequence()},
                    .first_position = in.getFirstPosition(),
                    .prompt_length = in.getPromptLength(),
                    .stored = in.getStored(),
                    .token_ids = read_list(in.getTokenIds()),
                    .block_tables = {},
                    .sample = {}};
  if (rows.first_position < 0) refuse_field("first_position");
  if (rows.prompt_length < 0) refuse_field("prompt_length");
  if (rows.stored < 0) refuse_field("stored");
  if (rows.token_ids.empty()) refuse_field("token_ids");
  for (const auto table : in.getBlockTables()) rows.block_tables.push_back(read_list(table));
  const auto last = in.getLastToken();
  if (last.isSlot()) rows.last_token_slot = last.getSlot();
  const auto sample = in.getSample();
  if (sample.isDraw()) rows.sample = read_draw(sample.getDraw());
  if (in.hasScored()) rows.scored = read_scored(in.getScored(), rows.token_ids.size());
  rows.adapter_id = read_optional(in.getAdapter());
  rows.row_group = read_optional(in.getRowGroup());
  rows.draft_token_ids = read_list(in.getDraftTokenIds());
  return rows;
}

step_plan read_plan(wire::StepPlan::Reader in) {
  step_plan plan{
      .epoch = {in.getIncarnation(), in.getEpoch()}, .step = in.getStep(), .sequences = {}};
  for (const auto rows : in.getSequences()) plan.sequences.push_back(read_rows(rows));
  plan.model_id = read_optional(in.getModel());
  return plan;
}

std::vector<sampled_token> read_tokens(capnp::List<wire::SampledToken>::Reader in) {
  std::vector<sampled_token> tokens;
  tokens.reserve(in.size());
  for (const auto token : in) {
    sampled_token read{.sequence = {token.getSequence()},
                       .token_id = token.getTokenId(),
                       .logprob = token.getLogprob(),
                       .top = {},
                       .finite = token.getFinite(),
                       .allowed = token.getAllowed()};
    for (const auto top : token.getTop()) {
      read.top.push_back({.token_id = top.getTokenId(), .logprob = top.getLogprob()});
    }
    tokens.push_back(std::move(read));
  }
  return tokens;
}

void write_tokens(capnp::List<wire::SampledToken>::Builder out,
                  const std::vector<sampled_token>& tokens) {
  for (unsigned i = 0; i < out.size(); ++i) {
    const sampled_token& token = tokens[i];
    auto to = out[i];
    to.setSequence(token.sequence.value);
    to.setTokenId(token.token_id);
    to.setLogprob(token.logprob);
    to.setFinite(token.finite);
    to.setAllowed(token.allowed);
    auto top = to.initTop(list_size(token.top.size()));
    for (unsigned k = 0; k < top.size(); ++k) {
      top[k].setTokenId(token.top[k].token_id);
      top[k].setLogprob(token.top[k].logprob);
    }
  }
}

step_result read_result(wire::StepResult::Reader in) {
  return {.tokens = read_tokens(in.getTokens()), .scored = read_tokens(in.getScored())};
}

following_changes read_following(wire::FollowingChanges::Reader in) {
  following_changes changes{.step = in.getStep(), .rows = {}};
  for (const auto row : in.getRows()) changes.rows.push_back(read_changes(row));
  return changes;
}

size_t estimate_bytes(const logit_changes& changes) {
  return 128 + 8 * (changes.bias.size() + changes.counts.size()) +
         4 * (changes.forbidden.size() + changes.allowed.size());
}

size_t estimate_bytes(const step_plan& plan) {
  size_t bytes = 256;
  for (const planned_rows& rows : plan.sequences) {
    bytes += 256 + 4 * (rows.token_ids.size() + rows.draft_token_ids.size());
    if (rows.scored) bytes += 64 + 4 * rows.scored->token_ids.size();
    for (const auto& table : rows.block_tables) bytes += 32 + 4 * table.size();
    if (rows.sample && rows.sample->changes) bytes += estimate_bytes(*rows.sample->changes);
  }
  return bytes;
}

}  // namespace

wire_bytes encode(const step_plan& plan) {
  return write_message<wire::StepPlan>(estimate_bytes(plan), [&](wire::StepPlan::Builder out) {
    out.setIncarnation(plan.epoch.incarnation);
    out.setEpoch(plan.epoch.number);
    out.setStep(plan.step);
    auto sequences = out.initSequences(list_size(plan.sequences.size()));
    for (unsigned i = 0; i < sequences.size(); ++i) write_rows(sequences[i], plan.sequences[i]);
    write_optional(out.getModel(), plan.model_id);
  });
}

wire_bytes encode(const step_result& result) {
  size_t estimate = 128;
  for (const sampled_token& token : result.tokens) estimate += 64 + 8 * token.top.size();
  for (const sampled_token& token : result.scored) estimate += 64 + 8 * token.top.size();
  return write_message<wire::StepResult>(estimate, [&](wire::StepResult::Builder out) {
    write_tokens(out.initTokens(list_size(result.tokens.size())), result.tokens);
    write_tokens(out.initScored(list_size(result.scored.size())), result.scored);
  });
}

wire_bytes encode(const following_changes& changes) {
  size_t estimate = 128;
  for (const logit_changes& row : changes.rows) estimate += estimate_bytes(row);
  return write_message<wire::FollowingChanges>(estimate, [&](wire::FollowingChanges::Builder out) {
    out.setStep(changes.step);
    auto rows = out.initRows(list_size(changes.rows.size()));
    for (unsigned i = 0; i < rows.size(); ++i) write_changes(rows[i], changes.rows[i]);
  });
}

base::result<step_plan> decode_step_plan(std::span<const std::uint8_t> bytes) {
  return read_message<wire::StepPlan>(bytes, wire_limits::step_plan_bytes_max, "step plan",
                                      read_plan);
}

base::result<step_result> decode_step_result(std::span<const std::uint8_t> bytes) {
  return read_message<wire::StepResult>(bytes, wire_limits::step_result_bytes_max, "step result",
                                        read_result);
}

base::result<following_changes> decode_following_changes(std::span<const std::uint8_t> bytes) {
  return read_message<wire::FollowingChanges>(bytes, wire_limits::following_changes_bytes_max,
                                              "changes of logits", read_following);
}

}  // namespace troupe::schemas
