//! The bytes that a token stands for, as grammars need them.
//!
//! Source: the two alphabets of Hugging Face's vocabularies, tokenizers 0.23
//! src/pre_tokenizers/byte_level.rs and src/decoders/byte_fallback.rs.

use serde_json::Value;

use crate::detokenizer::{byte_of, byte_token};
use crate::tokenizer::TextTokenizer;

/// How a vocabulary writes bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// Each byte as a printable character (GPT-2).
    ByteLevel,
    /// Text with a mark for the space, and "<0x0A>" for bytes (SentencePiece).
    Marked(char),
}

/// Before a special token's name: no text has this byte, so only a grammar that names it allows it.
const SPECIAL: u8 = 0xFF;

fn has_kind(decoder: &Value, kind: &str) -> bool {
    decoder["type"] == kind
        || decoder["decoders"]
            .as_array()
            .is_some_and(|list| list.iter().any(|inner| has_kind(inner, kind)))
}

impl Spelling {
    pub fn of(decoder: &Value) -> Spelling {
        if has_kind(decoder, "ByteLevel") {
            Spelling::ByteLevel
        } else {
            Spelling::Marked('\u{2581}')
        }
    }

    /// Empty where no token has this id.
    pub fn bytes(self, tokenizer: &TextTokenizer, id: u32) -> Vec<u8> {
        let Some(piece) = i32::try_from(id).ok().and_then(|id| tokenizer.piece(id)) else {
            return Vec::new();
        };
        match tokenizer.added(id) {
            Some(true) => [&[SPECIAL], piece.as_bytes()].concat(),
            Some(false) => piece.into_bytes(),
            None => self.plain(&piece),
        }
    }

    fn plain(self, piece: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => {
                let bytes: Option<Vec<u8>> = piece.chars().map(byte_of).collect();
                bytes.unwrap_or_else(|| piece.as_bytes().to_vec())
            }
            Spelling::Marked(mark) => match byte_token(piece) {
                Some(byte) => vec![byte],
                None => piece.replace(mark, " ").into_bytes(),
            },
        }
    }
}
