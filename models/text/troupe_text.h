/* C interface of the troupe_text crate: tokenizer, streaming decoder, chat template, grammars.
 *
 * For the C++ wrappers in this folder only; others include tokenizer.hpp, detokenizer.hpp,
 * chat_template.hpp, grammar.hpp. Every function that can fail returns 0 or a base::error_code, and
 * writes one line to *error, to be freed like any buffer. No function throws or panics. */
#ifndef TROUPE_TEXT_H
#define TROUPE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_text_tokenizer troupe_text_tokenizer;
typedef struct troupe_text_detokenizer troupe_text_detokenizer;
typedef struct troupe_text_template troupe_text_template;
typedef struct troupe_text_grammar_factory troupe_text_grammar_factory;
typedef struct troupe_text_grammar troupe_text_grammar;
typedef struct troupe_text_grammar_state troupe_text_grammar_state;

/* Borrowed bytes, for the call; data NULL: absent. */
typedef struct {
  const uint8_t* data;
  size_t size;
} troupe_text_view;

/* Owned bytes: UTF-8 text, not terminated. */
typedef struct {
  uint8_t* data;
  size_t size;
} troupe_text_buffer;

typedef struct {
  int32_t* data;
  size_t size;
} troupe_text_ids;

typedef struct {
  troupe_text_view tokenizer_json;
  troupe_text_view tokenizer_config_json;   /* may be absent */
  troupe_text_view special_tokens_map_json; /* may be absent */
} troupe_text_files;

/* Civil time; year 0: none given. */
typedef struct {
  int32_t year, month, day, hour, minute, second;
} troupe_text_clock;

typedef struct {
  uint64_t fuel_base;
  uint64_t fuel_per_value;
  uint64_t fuel_max;
  size_t output_bytes_max;
  uint32_t recursion_max;
} troupe_text_limits;

typedef struct {
  troupe_text_view messages_json;
  troupe_text_view tools_json;     /* may be absent */
  troupe_text_view documents_json; /* may be absent */
  troupe_text_view kwargs_json;    /* may be absent */
  troupe_text_view kwargs_allowed; /* names, separated by line feeds */
  bool add_generation_prompt;
  troupe_text_clock now;
  troupe_text_limits limits;
} troupe_text_request;

void troupe_text_buffer_free(troupe_text_buffer buffer);
void troupe_text_ids_free(troupe_text_ids ids);

int32_t troupe_text_tokenizer_open(const troupe_text_files* files, troupe_text_tokenizer** out,
                                   troupe_text_buffer* error);
void troupe_text_tokenizer_free(troupe_text_tokenizer* tokenizer);
int32_t troupe_text_encode(const troupe_text_tokenizer* tokenizer, troupe_text_view text,
                           bool add_special_tokens, bool parse_special, troupe_text_ids* out,
                           troupe_text_buffer* error);
int32_t troupe_text_decode(const troupe_text_tokenizer* tokenizer, const int32_t* ids, size_t count,
                           bool skip_special_tokens, troupe_text_buffer* out,
                           troupe_text_buffer* error);
int32_t troupe_text_token_count(const troupe_text_tokenizer* tokenizer);
bool troupe_text_is_special(const troupe_text_tokenizer* tokenizer, int32_t id);
int32_t troupe_text_id_to_token(const troupe_text_tokenizer* tokenizer, int32_t id,
                                troupe_text_buffer* out, troupe_text_buffer* error);
/* -1 where there is no such token. */
int32_t troupe_text_token_to_id(const troupe_text_tokenizer* tokenizer, troupe_text_view token);

int32_t troupe_text_detokenizer_new(const troupe_text_tokenizer* tokenizer,
                                    bool skip_special_tokens, troupe_text_detokenizer** out,
                                    troupe_text_buffer* error);
void troupe_text_detokenizer_free(troupe_text_detokenizer* detokenizer);
int32_t troupe_text_detokenizer_push(troupe_text_detokenizer* detokenizer, int32_t id,
                                     troupe_text_buffer* out, troupe_text_buffer* error);
int32_t troupe_text_detokenizer_finish(troupe_text_detokenizer* detokenizer,
                                       troupe_text_buffer* out, troupe_text_buffer* error);

/* chat_template absent: the chat_template of tokenizer_config_json. */
int32_t troupe_text_template_open(troupe_text_view chat_template,
                                  troupe_text_view tokenizer_config_json,
                                  troupe_text_view special_tokens_map_json,
                                  troupe_text_template** out, troupe_text_buffer* error);
void troupe_text_template_free(troupe_text_template* chat_template);
int32_t troupe_text_template_render(const troupe_text_template* chat_template,
                                    const troupe_text_request* request, troupe_text_buffer* out,
                                    troupe_text_buffer* error);

/* The tokenizer is only read during the call. */
int32_t troupe_text_grammar_factory_new(const troupe_text_tokenizer* tokenizer, size_t vocab_size,
                                        const int32_t* end_ids, size_t end_count,
                                        troupe_text_grammar_factory** out,
                                        troupe_text_buffer* error);
void troupe_text_grammar_factory_free(troupe_text_grammar_factory* factory);
/* kind: schemas::output_grammar::kind as a number. */
int32_t troupe_text_grammar_compile(const troupe_text_grammar_factory* factory, uint8_t kind,
                                    troupe_text_view text, troupe_text_grammar** out,
                                    troupe_text_buffer* error);
void troupe_text_grammar_free(troupe_text_grammar* grammar);
int32_t troupe_text_grammar_start(const troupe_text_grammar* grammar,
                                  troupe_text_grammar_state** out, troupe_text_buffer* error);
void troupe_text_grammar_state_free(troupe_text_grammar_state* state);
/* count: words of 32 tokens, as many as vocab_size needs. */
int32_t troupe_text_grammar_mask(troupe_text_grammar_state* state, uint32_t* words, size_t count,
                                 troupe_text_buffer* error);
int32_t troupe_text_grammar_accept(troupe_text_grammar_state* state, int32_t id,
                                   troupe_text_buffer* error);
bool troupe_text_grammar_may_stop(const troupe_text_grammar_state* state);
bool troupe_text_grammar_finished(const troupe_text_grammar_state* state);

#ifdef __cplusplus
}
#endif

#endif
