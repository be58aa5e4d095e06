//! Looks at a grammar before the library does: bytes, UTF-8, nesting, repeats.

use serde_json::Value;

use crate::fault::{Fault, Outcome};
use crate::grammar::Kind;

/// OpenAI allows 120,000 characters of names and values in a schema. These are cheap for the
/// library, whose work grows with the square of the alternatives in Lark and of the optional parts
/// of a regular expression: of those that fit in, the worst take some 100 ms.
fn bytes_max(kind: Kind) -> usize {
    match kind {
        Kind::JsonObject | Kind::JsonSchema | Kind::Choice => 128 << 10,
        Kind::Lark => 32 << 10,
        Kind::Regex => 16 << 10,
    }
}
/// Of one object of a schema, and of one anyOf, oneOf or allOf: the work grows with the square.
const MEMBERS_MAX: usize = 500;
/// Divisibility is an automaton of as many states, counted in units of the last digit.
const MULTIPLE_OF_MAX: u64 = 10_000;
/// OpenAI allows 10 levels of a schema, each of two or three brackets.
pub const GRAMMAR_DEPTH_MAX: u32 = 64;

fn refuse(message: String) -> Fault {
    Fault::exhausted(message)
}

/// The deepest nesting of brackets outside of escapes. Strings are not told from the rest in Lark
/// and regular expressions, which at worst refuses a string of more than 64 opening brackets.
fn check_depth(kind: Kind, text: &str) -> Outcome<()> {
    if matches!(kind, Kind::JsonSchema | Kind::Choice) {
        return json_depth(text);
    }
    let (mut depth, mut escaped) = (0u32, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' | b'[' | b'{' => {
                depth += 1;
                if depth > GRAMMAR_DEPTH_MAX {
                    return Err(too_deep(at));
                }
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn too_deep(at: usize) -> Fault {
    refuse(format!("the grammar nests deeper than {GRAMMAR_DEPTH_MAX} at byte {at}"))
}

fn json_depth(text: &str) -> Outcome<()> {
    let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if in_string && escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > GRAMMAR_DEPTH_MAX {
                    return Err(too_deep(at));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The whole expression is matched anyway, so ^ at its beginning and $ at its end say nothing new;
/// the library knows no anchors.
pub fn without_anchors(regex: &str) -> &str {
    let inner = regex.strip_prefix('^').unwrap_or(regex);
    let Some(shorter) = inner.strip_suffix('$') else {
        return whole(regex, inner);
    };
    let escapes = shorter.bytes().rev().take_while(|byte| *byte == b'\\').count();
    whole(regex, if escapes % 2 == 0 { shorter } else { inner })
}

/// In ^a|b$ the anchors belong to one alternative each: such a regex stays as it is, to be refused
/// by the library rather than read in another way.
fn whole<'r>(regex: &'r str, inner: &'r str) -> &'r str {
    let (mut depth, mut escaped, mut class) = (0i32, false, false);
    for byte in inner.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => class = true,
            b']' => class = false,
            b'(' if !class => depth += 1,
            b')' if !class => depth -= 1,
            b'|' if !class && depth == 0 => return regex,
            _ => {}
        }
    }
    inner
}

/// The text of the grammar where it is within its bounds.
pub fn check(kind: Kind, bytes: &[u8]) -> Outcome<&str> {
    let (have, most) = (bytes.len(), bytes_max(kind));
    if have > most {
        return Err(refuse(format!("the {} has {have} bytes, more than {most}", kind.name())));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Fault::invalid(format!("the grammar has malformed UTF-8 at byte {}", e.valid_up_to()))
    })?;
    check_depth(kind, text)?;
    Ok(text)
}

/// The digits of a number without its point: 0.05 and 5 are both 5.
fn digits_of(number: &serde_json::Number) -> Option<u64> {
    let text = number.to_string();
    let digits: String = text.chars().filter(|c| *c != '.').collect();
    digits.parse().ok()
}

/// Refuses what a schema of a few bytes would unfold to. Also within const and enum, where it means
/// nothing and nobody has so much.
pub fn check_schema(schema: &Value) -> Outcome<()> {
    match schema {
        Value::Array(items) => items.iter().try_for_each(check_schema),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let members = match name.as_str() {
                "properties" | "patternProperties" => value.as_object().map_or(0, |of| of.len()),
                "anyOf" | "oneOf" | "allOf" => value.as_array().map_or(0, Vec::len),
                _ => 0,
            };
            if members > MEMBERS_MAX {
                let message = format!(
                    "the JSON schema has {members} members in one {name}, more than {MEMBERS_MAX}"
                );
                return Err(refuse(message));
            }
            if let (true, Value::Number(number)) = (name == "multipleOf", value) {
                if digits_of(number).is_none_or(|digits| digits > MULTIPLE_OF_MAX) {
                    let message = format!(
                        "the JSON schema has multipleOf {number}; its digits may be up to \
                         {MULTIPLE_OF_MAX}"
                    );
                    return Err(refuse(message));
                }
            }
            check_schema(value)
        }),
        _ => Ok(()),
    }
}
