//! A tokenizer opened from its files: encode, decode, and what is known of single tokens.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

use crate::fault::{Code, Fault, Outcome};
use crate::{guard, tokenizer_config};

/// One text to encode: four times the largest request body.
const TEXT_BYTES_MAX: usize = 16 << 20;

pub struct Files<'f> {
    pub tokenizer_json: &'f [u8],
    pub tokenizer_config: Option<&'f [u8]>,
    pub special_tokens_map: Option<&'f [u8]>,
}

pub struct TextTokenizer {
    inner: Tokenizer,
    /// The same with special tokens read as plain text; made when first asked for.
    literal: OnceLock<Tokenizer>,
    specials: HashMap<u32, bool>,
    token_count: u32,
}

impl TextTokenizer {
    pub fn open(files: &Files<'_>) -> Outcome<TextTokenizer> {
        guard::check_tokenizer(files.tokenizer_json)?;
        let mut inner = Tokenizer::from_bytes(files.tokenizer_json)
            .map_err(|e| Fault::invalid(format!("tokenizer.json is malformed: {e}")))?;
        let config =
            tokenizer_config::parse_object("tokenizer_config.json", files.tokenizer_config)?;
        let special_map =
            tokenizer_config::parse_object("special_tokens_map.json", files.special_tokens_map)?;
        tokenizer_config::resolve(&config, &special_map, Some(&inner))?.apply(&mut inner)?;

        // Padding and truncation serve training; a prompt is never cut or filled up in silence.
        inner.with_padding(None);
        let cut = inner.with_truncation(None).map(|_| ());
        cut.map_err(|e| Fault::invalid(format!("tokenizer.json: truncation: {e}")))?;
        // Dropout makes encoding random, on purpose, in training.
        if let ModelWrapper::BPE(bpe) = inner.get_model() {
            if bpe.dropout.is_some() {
                let mut bpe = bpe.clone();
                bpe.dropout = None;
                inner.with_model(bpe);
            }
        }
        let id_max = inner.get_vocab(true).into_values().max();
        let id_max = id_max.ok_or_else(|| Fault::invalid("tokenizer.json has no tokens"))?;
        if u64::from(id_max) > guard::ID_MAX {
            let most = guard::ID_MAX;
            return Err(Fault::invalid(format!("token id {id_max} is above {most}")));
        }
        let added = inner.get_added_tokens_decoder();
        let specials = added.into_iter().map(|(id, token)| (id, token.special)).collect();
        let token_count = id_max + 1;
        Ok(TextTokenizer { inner, literal: OnceLock::new(), specials, token_count })
    }

    pub fn encode(
        &self,
        bytes: &[u8],
        add_special_tokens: bool,
        parse_special: bool,
    ) -> Outcome<Vec<i32>> {
        if bytes.len() > TEXT_BYTES_MAX {
            let (have, most) = (bytes.len(), TEXT_BYTES_MAX);
            return Err(Fault::exhausted(format!("text of {have} bytes, more than {most}")));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            Fault::invalid(format!("text has malformed UTF-8 at byte {}", e.valid_up_to()))
        })?;
        let tokenizer = if parse_special { &self.inner } else { self.literal() };
        let encoding = tokenizer
            .encode_fast(text, add_special_tokens)
            .map_err(|e| Fault::new(Code::Internal, format!("cannot encode the text: {e}")))?;
        Ok(encoding.get_ids().iter().map(|id| *id as i32).collect())
    }

    fn literal(&self) -> &Tokenizer {
        self.literal.get_or_init(|| {
            let mut tokenizer = self.inner.clone();
            tokenizer.set_encode_special_tokens(true);
            tokenizer
        })
    }

    pub fn decode(&self, ids: &[i32], skip_special_tokens: bool) -> Outcome<String> {
        // An id nobody has decodes to nothing, negative ones as well.
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        self.inner
            .decode(&ids, skip_special_tokens)
            .map_err(|e| Fault::new(Code::Internal, format!("cannot decode the tokens: {e}")))
    }

    /// The token's text in the vocabulary, before any decoder.
    pub fn piece(&self, id: i32) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// The piece that decode() would use: none where it would skip the token.
    pub fn decoded_piece(&self, id: i32, skip_special_tokens: bool) -> Option<String> {
        let added = self.inner.get_added_vocabulary();
        let id = u32::try_from(id).ok()?;
        let piece = added.simple_id_to_token(id).or_else(|| self.inner.id_to_token(id))?;
        (!skip_special_tokens || !added.is_special_token(&piece)).then_some(piece)
    }

    pub fn token_to_id(&self, token: &str) -> Option<i32> {
        self.inner.token_to_id(token).and_then(|id| i32::try_from(id).ok())
    }

    pub fn is_special(&self, id: i32) -> bool {
        u32::try_from(id).is_ok_and(|id| self.specials.get(&id).copied().unwrap_or(false))
    }

    pub fn token_count(&self) -> u32 {
        self.token_count
    }

    /// The decoder as tokenizer.json spells it; null where there is none.
    pub fn decoder_json(&self) -> Outcome<Value> {
        serde_json::to_value(self.inner.get_decoder())
            .map_err(|e| Fault::new(Code::Internal, format!("cannot read the decoder: {e}")))
    }
}
