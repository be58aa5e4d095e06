//! Looks at a tokenizer.json before the tokenizers library does: size, nesting, model, vocabulary.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::Deserialize;

use crate::fault::{Fault, Outcome};

/// The largest tokenizer.json of a public model is 35 MB (262 k tokens).
pub const JSON_BYTES_MAX: usize = 64 << 20;
pub const JSON_DEPTH_MAX: u32 = 64;
/// Public templates have at most 20 kB.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Four times the largest public vocabulary.
pub const VOCAB_MAX: usize = 1 << 20;
/// Token ids are int32 and index the rows of the embedding: far above is a corrupt file.
pub const ID_MAX: u64 = (1 << 24) - 1;

pub fn check_json(what: &str, bytes: &[u8]) -> Outcome<()> {
    if bytes.len() > JSON_BYTES_MAX {
        let (have, most) = (bytes.len(), JSON_BYTES_MAX);
        return Err(Fault::exhausted(format!("{what} has {have} bytes, more than {most}")));
    }
    let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    let message = format!("{what} nests deeper than {JSON_DEPTH_MAX} at byte {at}");
                    return Err(Fault::invalid(message));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// A vocabulary, counted without being stored.
#[derive(Default)]
struct Vocab {
    count: usize,
    is_list: bool,
    id_max: u64,
}

struct VocabVisitor;

impl<'de> Visitor<'de> for VocabVisitor {
    type Value = Vocab;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary: an object of ids or a list of pieces")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
        let mut vocab = Vocab::default();
        while let Some((_, id)) = map.next_entry::<IgnoredAny, u64>()? {
            vocab.count += 1;
            vocab.id_max = vocab.id_max.max(id);
        }
        Ok(vocab)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vocab, A::Error> {
        let mut vocab = Vocab { is_list: true, ..Vocab::default() };
        while items.next_element::<IgnoredAny>()?.is_some() {
            vocab.count += 1;
        }
        vocab.id_max = vocab.count.saturating_sub(1) as u64;
        Ok(vocab)
    }
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Vocab, D::Error> {
        deserializer.deserialize_any(VocabVisitor)
    }
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    vocab: Vocab,
    merges: Option<IgnoredAny>,
    max_input_chars_per_word: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct AddedTokenId {
    id: u64,
}

#[derive(Deserialize)]
struct Probe {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedTokenId>,
}

/// Refuses what this build cannot serve, with the reason.
pub fn check_tokenizer(bytes: &[u8]) -> Outcome<()> {
    check_json("tokenizer.json", bytes)?;
    let probe: Probe = serde_json::from_slice(bytes)
        .map_err(|e| Fault::invalid(format!("tokenizer.json is malformed: {e}")))?;
    let model = &probe.model;
    // Old files name no type; the tokenizers library then guesses from the fields, as here.
    let kind = match &model.kind {
        Some(kind) => kind.as_str(),
        None if model.merges.is_some() => "BPE",
        None if model.vocab.is_list => "Unigram",
        None if model.max_input_chars_per_word.is_some() => "WordPiece",
        None => "WordLevel",
    };
    match kind {
        "BPE" | "Unigram" | "WordLevel" => {}
        "WordPiece" => {
            let message = "tokenizer.json: model.type is WordPiece, which belongs to encoder \
                           models; supported: BPE, Unigram, WordLevel";
            return Err(Fault::invalid(message));
        }
        other => {
            let message = format!(
                "tokenizer.json: model.type '{other}' is not known; supported: BPE, Unigram, \
                 WordLevel"
            );
            return Err(Fault::invalid(message));
        }
    }
    let count = model.vocab.count + probe.added_tokens.len();
    if count > VOCAB_MAX {
        let message = format!("tokenizer.json has {count} tokens, more than {VOCAB_MAX}");
        return Err(Fault::exhausted(message));
    }
    let id_max = probe.added_tokens.iter().map(|t| t.id).fold(model.vocab.id_max, u64::max);
    if id_max > ID_MAX {
        let message = format!("tokenizer.json: token id {id_max} is above {ID_MAX}");
        return Err(Fault::invalid(message));
    }
    Ok(())
}
