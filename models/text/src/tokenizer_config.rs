//! What tokenizer_config.json adds to tokenizer.json, resolved as transformers 5 does for fast
//! tokenizers. Source: transformers, tokenization_utils_base.py (_from_pretrained, __init__) and
//! tokenization_utils_tokenizers.py (__init__).
//!
//! add_bos_token and add_eos_token are not read: beside a tokenizer.json transformers drops them,
//! and the post-processor in tokenizer.json alone decides.

use std::collections::HashMap;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use crate::fault::{Fault, Outcome};
use crate::guard;

const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A special token as the files give it.
#[derive(Clone)]
enum Given {
    Text(String),
    Token(AddedToken),
}

impl Given {
    fn content(&self) -> &str {
        match self {
            Given::Text(text) => text,
            Given::Token(token) => &token.content,
        }
    }
}

#[derive(Default)]
pub struct Resolved {
    /// bos_token ... in the order a template's variables are set.
    pub named: Vec<(String, String)>,
    to_add: Vec<AddedToken>,
}

pub fn parse_object(what: &str, bytes: Option<&[u8]>) -> Outcome<Map<String, Value>> {
    let Some(bytes) = bytes else {
        return Ok(Map::new());
    };
    guard::check_json(what, bytes)?;
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Fault::invalid(format!("{what} is not a JSON object"))),
        Err(e) => Err(Fault::invalid(format!("{what} is malformed: {e}"))),
    }
}

fn added_token(map: &Map<String, Value>, special_default: bool) -> Option<AddedToken> {
    let content = map.get("content")?.as_str()?;
    let flag = |name: &str, default: bool| map.get(name).map_or(Some(default), Value::as_bool);
    let special = flag("special", special_default)?;
    let token = AddedToken::from(content, special)
        .single_word(flag("single_word", false)?)
        .lstrip(flag("lstrip", false)?)
        .rstrip(flag("rstrip", false)?);
    let normalized = flag("normalized", !special)?;
    Some(token.normalized(normalized))
}

fn given(name: &str, value: &Value, special_default: bool) -> Outcome<Given> {
    let token = match value {
        Value::String(text) => Some(Given::Text(text.clone())),
        Value::Object(map) => added_token(map, special_default).map(Given::Token),
        _ => None,
    };
    token.ok_or_else(|| {
        Fault::invalid(format!("tokenizer_config.json: {name} must be a string or a token object"))
    })
}

/// The special tokens by name. `tokenizer` is absent where only a template is opened.
pub fn resolve(
    config: &Map<String, Value>,
    special_map: &Map<String, Value>,
    tokenizer: Option<&Tokenizer>,
) -> Outcome<Resolved> {
    let mut known: HashMap<String, AddedToken> = HashMap::new();
    let mut decoder: Vec<(u32, AddedToken)> = Vec::new();
    let mut fields = config.clone();
    if let Some(Value::Object(entries)) = config.get("added_tokens_decoder") {
        for (id, entry) in entries {
            let token = entry.as_object().and_then(|map| added_token(map, false));
            let (Ok(id), Some(token)) = (id.parse(), token) else {
                let message =
                    format!("tokenizer_config.json: added_tokens_decoder[{id}] is malformed");
                return Err(Fault::invalid(message));
            };
            known.insert(token.content.clone(), token.clone());
            decoder.push((id, token));
        }
        decoder.sort_by_key(|(id, _)| *id);
    } else {
        // The older layout: special_tokens_map.json, and the tokens of tokenizer.json itself.
        for (name, value) in special_map {
            fields.insert(name.clone(), value.clone());
        }
        for token in tokenizer.iter().flat_map(|t| t.get_added_tokens_decoder().into_values()) {
            known.insert(token.content.clone(), token);
        }
    }
    let named = named_tokens(&fields, &known, tokenizer)?;
    let mut resolved = Resolved::default();
    if let Some(tokenizer) = tokenizer {
        let extra = extra_tokens(&fields)?;
        resolved.to_add = missing_tokens(tokenizer, decoder, &named, extra);
    }
    resolved.named = named.into_iter().map(|(n, t)| (n, t.content().to_owned())).collect();
    Ok(resolved)
}

fn named_tokens(
    fields: &Map<String, Value>,
    known: &HashMap<String, AddedToken>,
    tokenizer: Option<&Tokenizer>,
) -> Outcome<Vec<(String, Given)>> {
    let mut named: Vec<(String, Given)> = Vec::new();
    for name in NAMED {
        let value = fields.get(name).filter(|v| !v.is_null());
        let token = match value {
            Some(value) => Some(given(name, value, true)?),
            // A padding section in tokenizer.json names the pad token where nothing else does.
            None if name == "pad_token" && !fields.contains_key(name) => {
                let padding = tokenizer.and_then(|t| t.get_padding());
                padding.map(|p| Given::Text(p.pad_token.clone()))
            }
            None => None,
        };
        if let Some(token) = token {
            let better = known.get(token.content()).cloned().map(Given::Token);
            named.push((name.to_owned(), better.unwrap_or(token)));
        }
    }
    // Tokens of one model family, e.g. image_token; dict-shaped extra tokens are of this kind too.
    for (name, value) in fields {
        let is_token = value.is_string() || value.get("__type").is_some();
        if name.ends_with("_token") && !NAMED.contains(&name.as_str()) && is_token {
            named.push((name.clone(), given(name, value, true)?));
        }
    }
    if let Some(Value::Object(entries)) = fields.get("extra_special_tokens") {
        for (name, value) in entries {
            named.push((name.clone(), given(name, value, true)?));
        }
    }
    Ok(named)
}

fn extra_tokens(fields: &Map<String, Value>) -> Outcome<Vec<Given>> {
    let is_set = |value: &&Value| value.as_array().is_some_and(|items| !items.is_empty());
    let extra = fields.get("extra_special_tokens").filter(is_set);
    let extra = extra.or_else(|| fields.get("additional_special_tokens").filter(is_set));
    let items = extra.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().map(|item| given("extra_special_tokens", item, true)).collect()
}

/// The tokens the configuration names and tokenizer.json does not have, or has with other flags.
fn missing_tokens(
    tokenizer: &Tokenizer,
    decoder: Vec<(u32, AddedToken)>,
    named: &[(String, Given)],
    extra: Vec<Given>,
) -> Vec<AddedToken> {
    let present: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    let mut contents: Vec<String> = present.iter().map(|t| t.content.clone()).collect();
    let mut to_add: Vec<AddedToken> = Vec::new();
    for (_, token) in decoder {
        if !present.contains(&token) {
            contents.push(token.content.clone());
            to_add.push(token);
        }
    }
    for token in named.iter().map(|(_, token)| token.clone()).chain(extra) {
        if contents.iter().any(|known| known == token.content()) {
            continue;
        }
        contents.push(token.content().to_owned());
        to_add.push(match token {
            Given::Text(text) => AddedToken::from(text, true),
            Given::Token(token) => token,
        });
    }
    for token in &mut to_add {
        token.special |= named.iter().any(|(_, n)| n.content() == token.content);
    }
    to_add
}

impl Resolved {
    pub fn apply(&self, tokenizer: &mut Tokenizer) -> Outcome<()> {
        if self.to_add.is_empty() {
            return Ok(());
        }
        tokenizer
            .add_tokens(self.to_add.iter().cloned())
            .map(|_| ())
            .map_err(|e| Fault::invalid(format!("tokenizer_config.json: cannot add tokens: {e}")))
    }
}

/// The templates of tokenizer_config.json: one string, or a list of {name, template}.
pub fn templates(config: &Map<String, Value>) -> Outcome<(Option<String>, Option<String>)> {
    let wrong = || Fault::invalid("tokenizer_config.json: chat_template has an unknown shape");
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok((None, None)),
        Some(Value::String(text)) => Ok((Some(text.clone()), None)),
        Some(Value::Array(items)) => {
            let (mut default, mut tool_use) = (None, None);
            for item in items {
                let text = item.get("template").and_then(Value::as_str).ok_or_else(wrong)?;
                match item.get("name").and_then(Value::as_str).ok_or_else(wrong)? {
                    "default" => default = Some(text.to_owned()),
                    "tool_use" => tool_use = Some(text.to_owned()),
                    _ => {}
                }
            }
            Ok((default, tool_use))
        }
        Some(_) => Err(wrong()),
    }
}
