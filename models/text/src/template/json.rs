//! JSON in (messages, tools, keyword arguments) and JSON out (the `tojson` filter), with Python's
//! spelling of both.

use super::float::float_repr;
use super::value::{Dict, Key, Val};
use crate::fault::{Fault, Outcome};

/// Requests may nest 32 deep, so this has room to spare; the parser recurses.
const DEPTH_MAX: u32 = 64;

pub struct Parsed {
    pub value: Val,
    /// How many values the text held, scalars included: the template's fuel grows with it.
    pub count: u64,
}

pub fn parse(what: &str, bytes: &[u8]) -> Outcome<Parsed> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Fault::invalid(format!("{what}: malformed UTF-8 at byte {}", e.valid_up_to()))
    })?;
    let mut parser = Parser { what, bytes: text.as_bytes(), text, at: 0, count: 0 };
    parser.space();
    let value = parser.value(0)?;
    parser.space();
    if parser.at != bytes.len() {
        return Err(parser.fault("unexpected text after the JSON value"));
    }
    Ok(Parsed { value, count: parser.count })
}

struct Parser<'a> {
    what: &'a str,
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    count: u64,
}

impl Parser<'_> {
    fn fault(&self, message: &str) -> Fault {
        Fault::invalid(format!("{}: {message} at byte {}", self.what, self.at))
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str, value: Val) -> Outcome<Val> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        Err(self.fault("expected a JSON value"))
    }

    fn value(&mut self, depth: u32) -> Outcome<Val> {
        if depth > DEPTH_MAX {
            return Err(self.fault(&format!("JSON nested deeper than {DEPTH_MAX}")));
        }
        self.count += 1;
        match self.bytes.get(self.at) {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Val::Str(self.string()?.into())),
            Some(b't') => self.word("true", Val::Bool(true)),
            Some(b'f') => self.word("false", Val::Bool(false)),
            Some(b'n') => self.word("null", Val::None),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.fault("expected a JSON value")),
        }
    }

    fn object(&mut self, depth: u32) -> Outcome<Val> {
        self.at += 1;
        let mut dict = Dict::new();
        self.space();
        if self.eat(b'}') {
            return Ok(Val::dict(dict));
        }
        loop {
            self.space();
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.fault("expected a quoted key"));
            }
            let key = Key::Str(self.string()?.into());
            self.space();
            if !self.eat(b':') {
                return Err(self.fault("expected ':'"));
            }
            self.space();
            let value = self.value(depth + 1)?;
            dict.insert(key, value);
            self.space();
            if self.eat(b'}') {
                return Ok(Val::dict(dict));
            }
            if !self.eat(b',') {
                return Err(self.fault("expected ',' or '}'"));
            }
        }
    }

    fn array(&mut self, depth: u32) -> Outcome<Val> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.eat(b']') {
            return Ok(Val::list(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.eat(b']') {
                return Ok(Val::list(items));
            }
            if !self.eat(b',') {
                return Err(self.fault("expected ',' or ']'"));
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Outcome<Val> {
        let start = self.at;
        self.eat(b'-');
        let leading_zero = self.bytes.get(self.at) == Some(&b'0');
        let whole = self.digits();
        if whole == 0 || (leading_zero && whole > 1) {
            return Err(self.fault("malformed number"));
        }
        let mut is_float = false;
        if self.eat(b'.') {
            is_float = true;
            if self.digits() == 0 {
                return Err(self.fault("malformed number"));
            }
        }
        if self.eat(b'e') || self.eat(b'E') {
            is_float = true;
            let _ = self.eat(b'+') || self.eat(b'-');
            if self.digits() == 0 {
                return Err(self.fault("malformed number"));
            }
        }
        let text = &self.text[start..self.at];
        if is_float {
            let value = text.parse().map_err(|_| self.fault("malformed number"))?;
            return Ok(Val::Float(value));
        }
        text.parse().map(Val::Int).map_err(|_| self.fault("integer with more than 38 digits"))
    }

    fn hex4(&mut self) -> Outcome<u32> {
        let digits = self.text.get(self.at..self.at + 4);
        let value = digits
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u32::from_str_radix(d, 16).ok())
            .ok_or_else(|| self.fault("malformed \\u escape"))?;
        self.at += 4;
        Ok(value)
    }

    fn escape(&mut self, out: &mut String) -> Outcome<()> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        out.push(match byte {
            Some(b @ (b'"' | b'\\' | b'/')) => b as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let mut code = self.hex4()?;
                if (0xD800..0xDC00).contains(&code) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let low = self.hex4()?;
                    if (0xDC00..0xE000).contains(&low) {
                        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    }
                }
                char::from_u32(code).ok_or_else(|| self.fault("lone surrogate in a string"))?
            }
            _ => return Err(self.fault("malformed escape")),
        });
        Ok(())
    }

    fn string(&mut self) -> Outcome<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.bytes.get(self.at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                Some(_) => return Err(self.fault("control character in a string")),
                None => return Err(self.fault("unterminated string")),
            }
        }
    }
}

/// json.dumps' options.
pub struct Dump {
    pub ensure_ascii: bool,
    pub sort_keys: bool,
    /// One level of indentation; none writes one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
}

impl Dump {
    pub fn write(&self, value: &Val, level: usize, out: &mut String) -> Outcome<()> {
        match value {
            Val::None => out.push_str("null"),
            Val::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Val::Int(i) => out.push_str(&i.to_string()),
            Val::Float(f) => out.push_str(&json_float(*f)),
            Val::Str(s) => self.quote(s, out),
            Val::List(items) | Val::Tuple(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.separate(i, level, out);
                    self.write(item, level + 1, out)?;
                }
                self.close(items.is_empty(), level, ']', out);
            }
            Val::Dict(dict) => self.dict(dict, level, out)?,
            other => {
                let name = other.type_name();
                let message = format!("tojson: object of type {name} is not JSON serializable");
                return Err(Fault::invalid(message));
            }
        }
        Ok(())
    }

    fn dict(&self, dict: &Dict, level: usize, out: &mut String) -> Outcome<()> {
        let mut entries: Vec<(&Key, &Val)> = dict.iter().collect();
        if self.sort_keys {
            let mut fault = None;
            entries.sort_by(|a, b| {
                a.0.to_val().compare(&b.0.to_val(), "<").unwrap_or_else(|e| {
                    fault = Some(e);
                    std::cmp::Ordering::Equal
                })
            });
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
        out.push('{');
        for (i, (key, value)) in entries.iter().enumerate() {
            self.separate(i, level, out);
            match key {
                Key::Str(s) => self.quote(s, out),
                Key::None => out.push_str("\"null\""),
                Key::Bool(b) => out.push_str(if *b { "\"true\"" } else { "\"false\"" }),
                Key::Int(n) => out.push_str(&format!("\"{n}\"")),
                Key::Float(bits) => {
                    out.push_str(&format!("\"{}\"", json_float(f64::from_bits(*bits))));
                }
            }
            out.push_str(&self.key_separator);
            self.write(value, level + 1, out)?;
        }
        self.close(dict.is_empty(), level, '}', out);
        Ok(())
    }

    fn new_line(&self, level: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            for _ in 0..level {
                out.push_str(indent);
            }
        }
    }

    fn separate(&self, index: usize, level: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.item_separator);
        }
        self.new_line(level + 1, out);
    }

    fn close(&self, empty: bool, level: usize, bracket: char, out: &mut String) {
        if !empty {
            self.new_line(level, out);
        }
        out.push(bracket);
    }

    fn quote(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    let mut units = [0u16; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn json_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    float_repr(value)
}
