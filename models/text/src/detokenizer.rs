//! Streaming decode: text leaves as soon as no later token can change it, and all pieces together
//! equal decode() of all ids, also for malformed byte sequences.
//!
//! Hugging Face's decoders are functions of the whole list of tokens. Each is rebuilt here as a
//! stage that takes one piece at a time and holds back only what a later piece could change:
//! at most 3 bytes (ByteLevel), one piece (BPEDecoder), a prefix of a pattern (Replace after Fuse),
//! the characters to strip at the end (Strip), or the current run of byte tokens (ByteFallback: a
//! run with one bad byte decodes to replacement characters throughout, so it waits for its end;
//! one byte a token).
//! Source: tokenizers 0.23, src/decoders and src/pre_tokenizers/{byte_level,metaspace}.rs.

use std::sync::Arc;

use serde_json::Value;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::Decoder;

use crate::fault::{Code, Fault, Outcome};
use crate::tokenizer::TextTokenizer;

enum Stage {
    /// One piece in, one out, no memory: the library's own decoder on a single piece.
    Single(DecoderWrapper),
    /// No decoder at all: pieces joined by spaces.
    Spaces {
        started: bool,
    },
    ByteLevel {
        pending: Vec<u8>,
    },
    ByteFallback {
        pending: Vec<u8>,
    },
    Metaspace {
        mark: char,
        prepends: bool,
        first: bool,
        fused: bool,
    },
    Suffix {
        suffix: String,
        held: Option<String>,
    },
    ReplaceAcross {
        pattern: String,
        content: String,
        held: String,
    },
    StripAcross {
        content: char,
        start: usize,
        stop: usize,
        held: usize,
    },
}

pub struct Detokenizer {
    tokenizer: Arc<TextTokenizer>,
    skip_special_tokens: bool,
    stages: Vec<Stage>,
}

impl Detokenizer {
    pub fn new(tokenizer: Arc<TextTokenizer>, skip_special_tokens: bool) -> Outcome<Detokenizer> {
        let decoder = tokenizer.decoder_json()?;
        let mut stages = Vec::new();
        if decoder.is_null() {
            stages.push(Stage::Spaces { started: false });
        } else {
            let mut fused = false;
            build(&decoder, &mut fused, &mut stages)?;
        }
        Ok(Detokenizer { tokenizer, skip_special_tokens, stages })
    }

    /// The text that is certain after this token.
    pub fn push(&mut self, id: i32) -> Outcome<String> {
        match self.tokenizer.decoded_piece(id, self.skip_special_tokens) {
            Some(piece) => self.advance(vec![piece], false),
            None => Ok(String::new()),
        }
    }

    /// What was held back. Nothing may be pushed afterwards.
    pub fn finish(&mut self) -> Outcome<String> {
        self.advance(Vec::new(), true)
    }

    fn advance(&mut self, mut pieces: Vec<String>, finish: bool) -> Outcome<String> {
        for stage in &mut self.stages {
            let mut next = Vec::new();
            for piece in pieces {
                stage.push(piece, &mut next)?;
            }
            if finish {
                stage.finish(&mut next);
            }
            pieces = next;
        }
        Ok(pieces.concat())
    }
}

fn refuse(what: &str) -> Fault {
    let message = format!("tokenizer.json: decoder {what} cannot be streamed");
    Fault::new(Code::Unimplemented, message)
}

fn single(value: &Value) -> Outcome<Stage> {
    let decoder = serde_json::from_value(value.clone());
    decoder.map(Stage::Single).map_err(|e| Fault::new(Code::Internal, e.to_string()))
}

fn one_char(value: &Value) -> Option<char> {
    let mut chars = value.as_str()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// `fused` says that the pieces so far are parts of one string, because a Fuse came before.
fn build(decoder: &Value, fused: &mut bool, stages: &mut Vec<Stage>) -> Outcome<()> {
    let kind = decoder["type"].as_str().unwrap_or_default();
    let field = |name: &str| decoder[name].as_str().unwrap_or_default().to_owned();
    match kind {
        "Sequence" => {
            for inner in decoder["decoders"].as_array().into_iter().flatten() {
                build(inner, fused, stages)?;
            }
        }
        "Fuse" => *fused = true,
        "ByteLevel" if !*fused => {
            stages.push(Stage::ByteLevel { pending: Vec::new() });
            *fused = true;
        }
        "ByteFallback" if !*fused => stages.push(Stage::ByteFallback { pending: Vec::new() }),
        "Metaspace" => {
            let mark = one_char(&decoder["replacement"]).ok_or_else(|| refuse(kind))?;
            let prepends = field("prepend_scheme") != "never";
            stages.push(Stage::Metaspace { mark, prepends, first: true, fused: *fused });
        }
        "BPEDecoder" if !*fused => {
            stages.push(Stage::Suffix { suffix: field("suffix"), held: None });
        }
        "Replace" | "Strip" if !*fused => stages.push(single(decoder)?),
        "Replace" => {
            let pattern = decoder["pattern"]["String"].as_str().unwrap_or_default().to_owned();
            if pattern.is_empty() {
                return Err(refuse("Replace with a regular expression after Fuse"));
            }
            let (content, held) = (field("content"), String::new());
            stages.push(Stage::ReplaceAcross { pattern, content, held });
        }
        "Strip" => {
            let count = |name: &str| decoder[name].as_u64().unwrap_or(0) as usize;
            let content = one_char(&decoder["content"]).ok_or_else(|| refuse(kind))?;
            let (start, stop) = (count("start"), count("stop"));
            stages.push(Stage::StripAcross { content, start, stop, held: 0 });
        }
        other => return Err(refuse(if other.is_empty() { "of unknown type" } else { other })),
    }
    Ok(())
}

impl Stage {
    fn push(&mut self, piece: String, out: &mut Vec<String>) -> Outcome<()> {
        match self {
            Stage::Single(decoder) => {
                let pieces = decoder.decode_chain(vec![piece]);
                out.extend(pieces.map_err(|e| Fault::new(Code::Internal, e.to_string()))?);
            }
            Stage::Spaces { started } => {
                if *started {
                    out.push(" ".into());
                }
                *started = true;
                out.push(piece);
            }
            Stage::ByteLevel { pending } => {
                let bytes: Option<Vec<u8>> = piece.chars().map(byte_of).collect();
                pending.extend(bytes.unwrap_or_else(|| piece.into_bytes()));
                out.push(take_text(pending, false));
            }
            Stage::ByteFallback { pending } => match byte_token(&piece) {
                Some(byte) => pending.push(byte),
                None => {
                    flush_run(pending, out);
                    out.push(piece);
                }
            },
            Stage::Metaspace { mark, prepends, first, fused } => {
                let drop = *prepends && (*first || *fused);
                let space = if drop { "" } else { " " };
                out.push(piece.replace(*mark, space));
                *first = false;
            }
            Stage::Suffix { suffix, held } => {
                if let Some(previous) = held.replace(piece) {
                    out.push(previous.replace(suffix.as_str(), " "));
                }
            }
            Stage::ReplaceAcross { pattern, content, held } => {
                held.push_str(&piece);
                out.push(replace_certain(pattern, content, held));
            }
            Stage::StripAcross { content, start, stop, held } => {
                out.push(strip_certain(&piece, *content, start, *stop, held));
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<String>) {
        match self {
            Stage::ByteLevel { pending } => out.push(take_text(pending, true)),
            Stage::ByteFallback { pending } => flush_run(pending, out),
            Stage::Suffix { suffix, held } => {
                out.extend(held.take().map(|last| last.replace(suffix.as_str(), "")));
            }
            Stage::ReplaceAcross { held, .. } => out.push(std::mem::take(held)),
            Stage::StripAcross { held, .. } => *held = 0,
            Stage::Single(_) | Stage::Spaces { .. } | Stage::Metaspace { .. } => {}
        }
    }
}

/// The byte behind a character of the byte-level alphabet: printable Latin-1 stands for itself,
/// the other 68 bytes for U+0100 and up, in order.
pub fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    let is_own = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if code < 0x100 {
        return is_own(code).then_some(code as u8);
    }
    let others = (0u32..256).filter(|b| !is_own(*b));
    others.zip(0x100..).find(|(_, stand_in)| *stand_in == code).map(|(b, _)| b as u8)
}

/// Takes the text that no later byte changes, with U+FFFD for each maximal malformed part, as
/// String::from_utf8_lossy writes it.
fn take_text(pending: &mut Vec<u8>, all: bool) -> String {
    let mut text = String::new();
    let mut from = 0;
    while let Err(error) = std::str::from_utf8(&pending[from..]) {
        let good = from + error.valid_up_to();
        text.push_str(&String::from_utf8_lossy(&pending[from..good]));
        from = good;
        match error.error_len() {
            Some(bad) => {
                text.push('\u{fffd}');
                from += bad;
            }
            None => {
                if all {
                    text.push('\u{fffd}');
                    pending.clear();
                } else {
                    pending.drain(..from);
                }
                return text;
            }
        }
    }
    text.push_str(&String::from_utf8_lossy(&pending[from..]));
    pending.clear();
    text
}

pub fn byte_token(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if piece.len() != 6 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

fn flush_run(pending: &mut Vec<u8>, out: &mut Vec<String>) {
    let run = std::mem::take(pending);
    let count = run.len();
    if count > 0 {
        out.push(String::from_utf8(run).unwrap_or_else(|_| "\u{fffd}".repeat(count)));
    }
}

/// Replaces in `held` and leaves there only a tail that may be the pattern's beginning.
fn replace_certain(pattern: &str, content: &str, held: &mut String) -> String {
    let mut text = String::new();
    let mut from = 0;
    while let Some(at) = held[from..].find(pattern) {
        text.push_str(&held[from..from + at]);
        text.push_str(content);
        from += at + pattern.len();
    }
    let rest = &held[from..];
    let starts = rest.char_indices().map(|(at, _)| at);
    let keep = starts.filter(|at| pattern.starts_with(&rest[*at..])).min().unwrap_or(rest.len());
    text.push_str(&rest[..keep]);
    *held = rest[keep..].to_owned();
    text
}

/// Drops up to `start` characters at the beginning of the text and keeps back the `stop` that may
/// be its last.
fn strip_certain(
    piece: &str,
    content: char,
    start: &mut usize,
    stop: usize,
    held: &mut usize,
) -> String {
    let mut text = String::new();
    for c in piece.chars() {
        if c == content && *start > 0 {
            *start -= 1;
            continue;
        }
        *start = 0;
        if c != content {
            text.extend(std::iter::repeat_n(content, std::mem::take(held)));
            text.push(c);
        } else if *held < stop {
            *held += 1;
        } else {
            text.push(c);
        }
    }
    text
}
