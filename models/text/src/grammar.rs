//! Grammars that an answer must follow, compiled by llguidance: which tokens may come next.
//!
//! A schema, a regex or a Lark grammar is hostile input. Its size is bounded here, the work of
//! compiling it and of each step by llguidance's fuel; a panic inside is an error (ffi.rs).

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{json, Value};

use crate::fault::{Code, Fault, Outcome};
use crate::guard;
use crate::tokenizer::TextTokenizer;

/// The largest published schemas that are in use have about 200 kB.
const TEXT_BYTES_MAX: usize = 256 << 10;
const CHOICES_MAX: usize = 1024;
/// Between two JSON tokens: room to indent, and an end to a model that writes only spaces.
const WHITESPACE: &str = r"\r?\n[ \t]{0,40}|[ \t]{1,4}";

/// As schemas::output_grammar::kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    JsonObject,
    JsonSchema,
    Regex,
    Choice,
    Lark,
}

impl Kind {
    pub fn of(number: i32) -> Outcome<Kind> {
        match number {
            0 => Ok(Kind::JsonObject),
            1 => Ok(Kind::JsonSchema),
            2 => Ok(Kind::Regex),
            3 => Ok(Kind::Choice),
            4 => Ok(Kind::Lark),
            other => Err(Fault::invalid(format!("there is no grammar of kind {other}"))),
        }
    }
}

/// The vocabulary as bytes, and what all grammars share. Any thread.
pub struct Grammars {
    factory: ParserFactory,
    words: usize,
}

/// One grammar at one place in a text. Clones are independent.
pub struct Grammar {
    matcher: Matcher,
    words: usize,
    tokens: u32,
}

fn refused(error: &impl std::fmt::Display) -> Fault {
    // The library adds its state after the first line.
    let text = error.to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    Fault::invalid(format!("the grammar cannot be used: {}", line.trim()))
}

impl Grammars {
    pub fn new(tokenizer: &TextTokenizer, eos: &[i32], vocab_size: i32) -> Outcome<Grammars> {
        let count = u32::try_from(vocab_size).unwrap_or(0).max(tokenizer.token_count());
        let mut ends: Vec<u32> = eos.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        ends.retain(|id| *id < count);
        let Some(first) = ends.first().copied() else {
            let message = "this model names no token that ends a text, so no grammar can end";
            return Err(Fault::new(Code::FailedPrecondition, message));
        };
        let spelled = tokenizer.spelled()?;
        let words: Vec<Vec<u8>> = (0..count).map(|id| spelled.bytes(tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(count, first), &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let made = ParserFactory::new(&env, InferenceCapabilities::default(), &[]);
        let mut factory = made.map_err(|e| Fault::new(Code::Internal, e.to_string()))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars { factory, words: count.div_ceil(32) as usize })
    }

    pub fn compile(&self, kind: Kind, text: &[u8]) -> Outcome<Grammar> {
        if text.len() > TEXT_BYTES_MAX {
            let (have, most) = (text.len(), TEXT_BYTES_MAX);
            return Err(Fault::invalid(format!("the grammar has {have} bytes, more than {most}")));
        }
        let text = std::str::from_utf8(text)
            .map_err(|e| Fault::invalid(format!("malformed UTF-8 at byte {}", e.valid_up_to())))?;
        let parser = self.factory.create_parser(top_level(kind, text)?);
        let matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(refused(&error));
        }
        let tokens = self.factory.tok_env().tok_trie().vocab_size() as u32;
        Ok(Grammar { matcher, words: self.words, tokens })
    }
}

fn top_level(kind: Kind, text: &str) -> Outcome<TopLevelGrammar> {
    match kind {
        Kind::JsonObject => schema(json!({ "type": "object" })),
        Kind::JsonSchema => {
            guard::check_json("the schema", text.as_bytes())?;
            let parsed = serde_json::from_str(text);
            schema(parsed.map_err(|e| Fault::invalid(format!("the schema is not JSON: {e}")))?)
        }
        Kind::Regex => Ok(TopLevelGrammar::from_regex(text)),
        Kind::Choice => choice(text),
        Kind::Lark => Ok(TopLevelGrammar::from_lark(text.to_owned())),
    }
}

fn schema(mut value: Value) -> Outcome<TopLevelGrammar> {
    match &mut value {
        // The library's own options are not the request's to set.
        Value::Object(fields) => {
            let options = json!({ "whitespace_pattern": WHITESPACE });
            fields.insert("x-guidance".into(), options);
        }
        Value::Bool(true) => return schema(json!({})),
        _ => return Err(Fault::invalid("a schema is a JSON object")),
    }
    Ok(TopLevelGrammar::from_json_schema(value))
}

fn choice(text: &str) -> Outcome<TopLevelGrammar> {
    let parsed: Result<Vec<String>, _> = serde_json::from_str(text);
    let choices = parsed.map_err(|e| Fault::invalid(format!("not a list of strings: {e}")))?;
    if choices.is_empty() || choices.len() > CHOICES_MAX {
        let count = choices.len();
        return Err(Fault::invalid(format!("{count} choices, allowed are 1 to {CHOICES_MAX}")));
    }
    if choices.iter().any(String::is_empty) {
        return Err(Fault::invalid("an empty string cannot be a choice"));
    }
    let quoted: Vec<String> =
        choices.into_iter().map(|one| Value::String(one).to_string()).collect();
    Ok(TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | "))))
}

impl Grammar {
    /// At the same place, to go on by itself.
    pub fn copy(&self) -> Grammar {
        Grammar { matcher: self.matcher.deep_clone(), words: self.words, tokens: self.tokens }
    }

    /// Bit i % 32 of word i / 32: token i may come next. The end tokens where the text may end.
    pub fn mask(&mut self, out: &mut [u32]) -> Outcome<()> {
        if out.len() > self.words {
            return Err(Fault::new(Code::OutOfRange, "more words than the vocabulary has"));
        }
        let set = self.matcher.compute_mask_or_eos().map_err(|e| refused(&e))?;
        let from = set.as_slice();
        let count = out.len().min(from.len());
        out[..count].copy_from_slice(&from[..count]);
        out[count..].fill(0);
        Ok(())
    }

    /// Goes on by one token, which the mask allowed.
    pub fn accept(&mut self, id: i32) -> Outcome<()> {
        let id = u32::try_from(id).ok().filter(|id| *id < self.tokens);
        let id = id.ok_or_else(|| Fault::invalid("the token is not in the vocabulary"))?;
        self.matcher.consume_token(id).map_err(|e| refused(&e))
    }
}
