//! Grammars that a text must follow, over llguidance: compiled once, then one state a sequence,
//! which says what tokens may come next.
//!
//! Grammars are hostile input. Size and nesting are bounded before the library sees them, its own
//! fuel bounds each step, and a compile runs on a thread of its own: with a stack that is known to
//! be large enough, and left behind (up to COMPILES_MAX of them) where it takes too long, since
//! llguidance cannot be interrupted there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use llguidance::api::{GrammarWithLexer, ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie, INVALID_TOKEN};
use llguidance::{ParserFactory, TokenParser};
use serde_json::{json, Value};

use crate::fault::{Code, Fault, Outcome};
use crate::grammar_guard as guard;
use crate::tokenizer::TextTokenizer;
use crate::vocabulary;

/// The tags of schemas::output_grammar, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    JsonObject,
    JsonSchema,
    Regex,
    Choice,
    Lark,
}

impl Kind {
    pub fn from_tag(tag: u8) -> Option<Kind> {
        use Kind::*;
        [JsonObject, JsonSchema, Regex, Choice, Lark].get(tag as usize).copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::JsonObject => "JSON object",
            Kind::JsonSchema => "JSON schema",
            Kind::Regex => "regular expression",
            Kind::Choice => "list of choices",
            Kind::Lark => "Lark grammar",
        }
    }
}

/// Between the tokens of JSON: a space, or a line break and an indent of eight levels of four.
/// Unlike the library's default, a bound: a model that has nothing to say may write spaces forever.
const WHITESPACE: &str = r"\x20|\x0D?\x0A(\x20{0,32}|\x09{0,8})";
/// What a caller waits; tests/text/grammar_hostile_test.cpp has the worst cases that are known.
const COMPILE_TIME_MAX: Duration = Duration::from_millis(1000);
/// Compiles at once, those left behind included: the worst known fill 200 MB a second meanwhile.
const COMPILES_MAX: usize = 4;
/// The library recurses along the nesting, which GRAMMAR_DEPTH_MAX bounds, and along long regexes.
const STACK_BYTES: usize = 64 << 20;
pub const THREAD_NAME: &str = "grammar";
const REASON_CHARS_MAX: usize = 250;

const STEP_FUEL: u64 = 200_000;

fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2000,
        // 50 k a millisecond: at most 20 ms. The largest public schemas (FHIR) need 500 k.
        initial_lexer_fuel: 1_000_000,
        // 14 k and 20 k a millisecond: a mask costs at most some 15 ms.
        step_lexer_fuel: STEP_FUEL,
        step_max_items: 50_000,
        // Each sequence has its own, of 1 to 2 kB.
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// Words of 32 tokens.
fn set(bits: &mut [u32], id: u32) {
    bits[id as usize / 32] |= 1 << (id % 32);
}

pub struct Factory {
    parsers: ParserFactory,
    /// Tokens that stand for text. No mask allows another one, but for the end.
    ordinary: Vec<u32>,
    /// The end-of-sequence tokens.
    ends: Vec<u32>,
    compiling: AtomicUsize,
}

pub struct Grammar {
    factory: Arc<Factory>,
    /// Never advanced. A sequence has a copy of all of it, its lexer's tables too: were these
    /// shared, whether a step ends at its fuel would hang on what other sequences have asked.
    fresh: Mutex<TokenParser>,
}

pub struct State {
    factory: Arc<Factory>,
    parser: TokenParser,
    may_stop: bool,
    only_end: bool,
    ended: bool,
    /// Set for good by the first failed step.
    fault: Option<Fault>,
    /// The lexer's fuel spent until its tank was filled last.
    fuel_mark: usize,
}

impl Factory {
    pub fn new(tokenizer: &TextTokenizer, vocab_size: usize, ends: &[i32]) -> Outcome<Factory> {
        if vocab_size == 0 || vocab_size > crate::guard::VOCAB_MAX {
            let most = crate::guard::VOCAB_MAX;
            let message = format!("a vocabulary of {vocab_size} tokens: expected 1 to {most}");
            return Err(Fault::invalid(message));
        }
        let ends: Vec<u32> = ends.iter().map(|id| *id as u32).collect();
        if let Some(id) = ends.iter().find(|id| **id as usize >= vocab_size) {
            let message = format!(
                "end-of-sequence token {} is outside of the vocabulary of {vocab_size} tokens",
                *id as i32
            );
            return Err(Fault::invalid(message));
        }
        let bytes = vocabulary::token_bytes(tokenizer, vocab_size, &ends)?;
        let mut ordinary = vec![0; vocab_size.div_ceil(32)];
        let spelled = bytes.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty());
        spelled.for_each(|(id, _)| set(&mut ordinary, id as u32));

        // The library is not told of the end: it is known here when a text may end.
        let info = TokRxInfo::new(vocab_size as u32, INVALID_TOKEN);
        let trie = TokTrie::from(&info, &bytes);
        // Approximate: it forces no tokens, so a mask holds every way to spell what may come.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let internal = |e: anyhow::Error| Fault::new(Code::Internal, e.to_string());
        let mut parsers = ParserFactory::new_simple(&env).map_err(internal)?;
        parsers.quiet();
        *parsers.limits_mut() = limits();
        Ok(Factory { parsers, ordinary, ends, compiling: AtomicUsize::new(0) })
    }

    pub fn words(&self) -> usize {
        self.ordinary.len()
    }
}

/// One of the COMPILES_MAX places; given back when the compile ends, waited for or not.
struct Place(Arc<Factory>);

impl Place {
    fn take(factory: &Arc<Factory>) -> Outcome<Place> {
        let free = |count: usize| (count < COMPILES_MAX).then_some(count + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        factory.compiling.fetch_update(set, fetch, free).map_err(|count| {
            let message = format!("{count} grammars are being compiled; try again in some seconds");
            Fault::new(Code::Unavailable, message)
        })?;
        Ok(Place(factory.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.compiling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The library's text without what it adds for its own developers.
fn reason(message: &str) -> String {
    let end = ["<non-verbose/>", "<backtrace>", "<state>"].iter().filter_map(|m| message.find(m));
    let text = message[..end.min().unwrap_or(message.len())].trim();
    if text.contains("missing special token prefix") {
        return "special tokens cannot be a part of a grammar; write them as text or leave them out"
            .into();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A message may repeat the grammar.
    match line.char_indices().nth(REASON_CHARS_MAX) {
        Some((at, _)) => format!("{} ...", &line[..at]),
        None => line,
    }
}

fn schema_of(text: &str) -> Outcome<Value> {
    let mut schema: Value = serde_json::from_str(text)
        .map_err(|e| Fault::invalid(format!("the JSON schema is malformed JSON: {e}")))?;
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    guard::check_schema(&schema)?;
    let Some(fields) = schema.as_object_mut() else {
        return Err(Fault::invalid("the JSON schema is no JSON object"));
    };
    if fields.contains_key("x-guidance") {
        let message = "the JSON schema has x-guidance, which this server sets itself: leave it out";
        return Err(Fault::invalid(message));
    }
    fields.insert("x-guidance".into(), json!({ "whitespace_pattern": WHITESPACE }));
    Ok(schema)
}

fn choices_of(text: &str) -> Outcome<String> {
    let choices: Vec<String> = serde_json::from_str(text).map_err(|e| {
        Fault::invalid(format!("the choices are no JSON list of strings: {e}"))
    })?;
    if choices.is_empty() {
        return Err(Fault::invalid("the list of choices is empty: give at least one"));
    }
    let escaped: Vec<String> = choices.iter().map(|c| regex_syntax::escape(c)).collect();
    Ok(format!("(?:{})", escaped.join("|")))
}

fn source_of(kind: Kind, text: &str) -> Outcome<GrammarWithLexer> {
    Ok(match kind {
        Kind::JsonObject => {
            GrammarWithLexer::from_json_schema(schema_of(r#"{"type": "object"}"#)?)
        }
        Kind::JsonSchema => GrammarWithLexer::from_json_schema(schema_of(text)?),
        // "//" would begin a comment in Lark.
        Kind::Regex if text.is_empty() => GrammarWithLexer::from_regex("(?:)"),
        Kind::Regex => GrammarWithLexer::from_regex(guard::without_anchors(text)),
        Kind::Choice => GrammarWithLexer::from_regex(&choices_of(text)?),
        Kind::Lark => GrammarWithLexer::from_lark(text.to_owned()),
    })
}

fn compile_here(factory: Arc<Factory>, kind: Kind, text: &str) -> Outcome<Grammar> {
    let source = TopLevelGrammar::from_grammar(source_of(kind, text)?);
    let refuse = |e: &dyn std::fmt::Display| {
        Fault::invalid(format!("the {} is refused: {}", kind.name(), reason(&e.to_string())))
    };
    let mut parser = factory.parsers.create_parser(source).map_err(|e| refuse(&e))?;
    parser.start_without_prompt();
    // The first mask is asked for here and copied with the rest; and who cannot begin is found.
    let mut words = vec![0; factory.words()];
    let mut first = State::over(factory.clone(), parser).map_err(|fault| refuse(&fault.message))?;
    first.mask(&mut words).map_err(|fault| refuse(&fault.message))?;
    Ok(Grammar { factory, fresh: Mutex::new(first.parser) })
}

impl Grammar {
    pub fn compile(factory: &Arc<Factory>, kind: Kind, text: &[u8]) -> Outcome<Grammar> {
        let text = guard::check(kind, text)?.to_owned();
        let place = Place::take(factory)?;
        let factory = factory.clone();
        let (send, receive) = mpsc::sync_channel(1);
        let work = move || {
            let work = std::panic::AssertUnwindSafe(|| compile_here(factory, kind, &text));
            let made = std::panic::catch_unwind(work)
                .unwrap_or_else(|panic| Err(crate::ffi::panic_fault(panic.as_ref())));
            drop(place);
            // Nobody waits for it where it took too long.
            let _ = send.send(made);
        };
        let thread = std::thread::Builder::new().name(THREAD_NAME.into()).stack_size(STACK_BYTES);
        thread.spawn(work).map_err(|e| {
            Fault::new(Code::Unavailable, format!("cannot start a grammar's thread: {e}"))
        })?;
        receive.recv_timeout(COMPILE_TIME_MAX).unwrap_or_else(|_| {
            let (name, most) = (kind.name(), COMPILE_TIME_MAX.as_millis());
            Err(Fault::exhausted(format!(
                "the {name} is too complex: not compiled in {most} ms; use fewer alternatives, \
                 shorter repeats or fewer properties"
            )))
        })
    }

    pub fn start(&self) -> Outcome<State> {
        let lost = |_| Fault::new(Code::Internal, "a grammar was left behind by a failure");
        let parser = self.fresh.lock().map_err(lost)?.deep_clone();
        State::over(self.factory.clone(), parser)
    }
}

impl State {
    fn over(factory: Arc<Factory>, parser: TokenParser) -> Outcome<State> {
        let (may_stop, only_end, ended) = (false, false, false);
        let (fault, fuel_mark) = (None, parser.parser.lexer_stats().total_fuel_spent);
        let mut state = State { factory, parser, may_stop, only_end, ended, fault, fuel_mark };
        state.look()?;
        Ok(state)
    }

    /// What the library says of a failed step: its fuel, or that there is no way on.
    fn failed(&mut self, error: &anyhow::Error) -> Fault {
        let limit = [StopReason::LexerTooComplex, StopReason::ParserTooComplex];
        let why = reason(&error.to_string());
        let fault = if limit.contains(&self.parser.stop_reason()) {
            Fault::exhausted(format!("the grammar is too complex for one step: {why}"))
        } else {
            Fault::new(Code::FailedPrecondition, format!("the grammar cannot go on: {why}"))
        };
        self.fault = Some(fault.clone());
        fault
    }

    /// Runs one step of the library. Also after a panic there is no next one.
    fn step<T>(&mut self, work: impl FnOnce(&mut TokenParser) -> anyhow::Result<T>) -> Outcome<T> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let panicked = Fault::new(Code::Internal, "the grammar's state was lost by a failure");
        self.fault = Some(panicked);
        let done = work(&mut self.parser);
        self.fault = None;
        done.map_err(|e| self.failed(&e))
    }

    /// Asks the library what this place in the text is.
    fn look(&mut self) -> Outcome<()> {
        self.only_end = self.step(|parser| parser.check_stop())?;
        self.may_stop = self.step(|parser| Ok(parser.is_accepting()))?;
        // The tank is filled only by a mask: whoever goes through a log without asking for any
        // would run dry where the one who wrote it did not.
        let spent = self.parser.parser.lexer_stats().total_fuel_spent;
        if !self.only_end && spent - self.fuel_mark > STEP_FUEL as usize / 2 {
            self.fill()?;
        }
        Ok(())
    }

    fn fill(&mut self) -> Outcome<Option<SimpleVob>> {
        let may_stop = self.may_stop;
        let mask = self.step(|parser| match parser.compute_mask() {
            Ok(mask) => Ok(Some(mask)),
            // No token spells what may come next, yet the text may end here.
            Err(_) if may_stop && parser.stop_reason() == StopReason::NoExtensionBias => Ok(None),
            Err(e) => Err(e),
        })?;
        self.only_end = mask.is_none();
        self.fuel_mark = self.parser.parser.lexer_stats().total_fuel_spent;
        Ok(mask)
    }

    /// Only the end is left.
    pub fn finished(&self) -> bool {
        self.only_end || self.ended
    }

    pub fn may_stop(&self) -> bool {
        self.may_stop
    }

    pub fn mask(&mut self, words: &mut [u32]) -> Outcome<()> {
        if words.len() != self.factory.words() {
            let (have, need) = (words.len(), self.factory.words());
            let message = format!("a mask of {have} words where the vocabulary has {need}");
            return Err(Fault::new(Code::Internal, message));
        }
        words.fill(0);
        let mask = if self.finished() { None } else { self.fill()? };
        if let Some(mask) = mask {
            let both = mask.as_slice().iter().zip(&self.factory.ordinary);
            words.iter_mut().zip(both).for_each(|(word, (a, b))| *word = a & b);
        }
        if self.may_stop {
            self.factory.ends.iter().for_each(|id| set(words, *id));
        } else if words.iter().all(|word| *word == 0) {
            return Err(self.failed(&anyhow::anyhow!("no token of this model spells what it asks")));
        }
        Ok(())
    }

    /// A token that is not allowed changes nothing.
    pub fn accept(&mut self, id: i32) -> Outcome<()> {
        let token = id as u32;
        let refused = || Fault::invalid(format!("token {id} is not allowed by the grammar here"));
        if self.factory.ends.contains(&token) {
            self.ended |= self.may_stop;
            return if self.may_stop { Ok(()) } else { Err(refused()) };
        }
        let word = self.factory.ordinary.get(token as usize / 32);
        let ordinary = word.is_some_and(|word| word >> (token % 32) & 1 == 1);
        if !ordinary || self.finished() {
            return Err(refused());
        }
        if self.step(|parser| parser.validate_tokens_raw(&[token]))? == 0 {
            return Err(refused());
        }
        self.step(|parser| parser.consume_token(token))?;
        self.look()
    }
}
