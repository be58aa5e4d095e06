//! The bytes that each token adds to the text: what a grammar over bytes needs of a tokenizer.
//!
//! Derived from tokenizer.json's decoder, for decoders that work on each token by itself (all
//! byte-level ones, SentencePiece with byte tokens, Metaspace). What a decoder strips at the very
//! edges of a text is left out of account: a grammar says what the tokens spell.

use serde_json::Value;

use crate::detokenizer::{byte_of, byte_token};
use crate::fault::{Code, Fault, Outcome};
use crate::tokenizer::TextTokenizer;

/// The trie holds 1023 levels; the longest tokens of public models are 128 to 1024 equal
/// characters, and longer ones are never needed, as shorter ones spell the same.
const TOKEN_BYTES_MAX: usize = 512;

enum Step {
    ByteLevel,
    ByteFallback,
    Replace { pattern: String, content: String },
}

fn refuse(what: &str) -> Fault {
    let message = format!(
        "structured output needs a tokenizer whose tokens stand for bytes by themselves; the \
         decoder of this tokenizer.json is {what}"
    );
    Fault::new(Code::Unimplemented, message)
}

fn read(decoder: &Value, fused: &mut bool, steps: &mut Vec<Step>) -> Outcome<()> {
    let field = |name: &str| decoder[name].as_str().unwrap_or_default().to_owned();
    match decoder["type"].as_str().unwrap_or_default() {
        "Sequence" => {
            for inner in decoder["decoders"].as_array().into_iter().flatten() {
                read(inner, fused, steps)?;
            }
        }
        "ByteLevel" => steps.push(Step::ByteLevel),
        "ByteFallback" => steps.push(Step::ByteFallback),
        "Fuse" => *fused = true,
        // Of the whole text by then: its edges only.
        "Strip" if *fused => {}
        "Metaspace" => {
            steps.push(Step::Replace { pattern: field("replacement"), content: " ".into() });
        }
        "Replace" => {
            let pattern = decoder["pattern"]["String"].as_str().unwrap_or_default().to_owned();
            // Several characters may lie across two tokens once these are joined.
            if pattern.is_empty() || *fused && pattern.chars().count() > 1 {
                return Err(refuse("a Replace that may reach over two tokens"));
            }
            steps.push(Step::Replace { pattern, content: field("content") });
        }
        "" => return Err(refuse("missing")),
        other => return Err(refuse(other)),
    }
    Ok(())
}

fn bytes_of(piece: String, steps: &[Step]) -> Vec<u8> {
    let mut text = piece;
    for step in steps {
        match step {
            Step::ByteLevel => {
                let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
                return bytes.unwrap_or_else(|| text.into_bytes());
            }
            Step::ByteFallback => {
                if let Some(byte) = byte_token(&text) {
                    return vec![byte];
                }
            }
            Step::Replace { pattern, content } => text = text.replace(pattern.as_str(), content),
        }
    }
    text.into_bytes()
}

/// One entry an id of the model; empty where a text can never hold the token: special ones, those
/// of `never`, ids that no token has, bytes that UTF-8 has not.
pub fn token_bytes(
    tokenizer: &TextTokenizer,
    vocab_size: usize,
    never: &[u32],
) -> Outcome<Vec<Vec<u8>>> {
    let (mut steps, mut fused) = (Vec::new(), false);
    read(&tokenizer.decoder_json()?, &mut fused, &mut steps)?;
    let mut all = vec![Vec::new(); vocab_size];
    for (id, bytes) in all.iter_mut().enumerate().take(tokenizer.token_count() as usize) {
        if tokenizer.is_special(id as i32) || never.contains(&(id as u32)) {
            continue;
        }
        let Some(piece) = tokenizer.decoded_piece(id as i32, false) else {
            continue;
        };
        let made = bytes_of(piece, &steps);
        // toktrie reads 0xFF as the mark of a special token.
        if made.len() <= TOKEN_BYTES_MAX && !made.contains(&0xff) {
            *bytes = made;
        }
    }
    if all.iter().all(Vec::is_empty) {
        return Err(Fault::invalid("no token of this tokenizer stands for text"));
    }
    Ok(all)
}
