//! Tokenizer, streaming decoder and chat template of a Hugging Face folder, behind the C header
//! troupe_text.h. Files, prompts and templates are hostile input: sizes and nesting are bounded
//! before a library sees them, and no panic leaves this crate (ffi.rs).

mod detokenizer;
mod fault;
mod ffi;
mod grammar;
mod grammar_ffi;
mod grammar_guard;
mod guard;
mod template;
mod tokenizer;
mod tokenizer_config;
mod vocabulary;
