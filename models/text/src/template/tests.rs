//! Jinja2's tests (`value is name`).

use std::cmp::Ordering;

use super::value::Val;
use super::{filters, ops};
use crate::fault::{Fault, Outcome};

fn argument<'v>(name: &str, args: &'v [Val]) -> Outcome<&'v Val> {
    args.first().ok_or_else(|| Fault::invalid(format!("test '{name}' needs an argument")))
}

fn remainder(value: &Val, by: i128) -> Outcome<bool> {
    Ok(ops::arithmetic("%", value, &Val::Int(by))?.equals(&Val::Int(0)))
}

/// Whether a test looks at more than the value's type.
pub fn reads_value(name: &str) -> bool {
    let by_type = [
        "defined",
        "undefined",
        "none",
        "boolean",
        "true",
        "false",
        "integer",
        "float",
        "number",
        "string",
        "mapping",
        "sequence",
        "iterable",
        "callable",
        "escaped",
    ];
    !by_type.contains(&name)
}

pub fn apply(name: &str, value: &Val, args: &[Val]) -> Outcome<bool> {
    Ok(match name {
        "defined" => !matches!(value, Val::Undef(_)),
        "undefined" => matches!(value, Val::Undef(_)),
        "none" => matches!(value, Val::None),
        "boolean" => matches!(value, Val::Bool(_)),
        "true" => matches!(value, Val::Bool(true)),
        "false" => matches!(value, Val::Bool(false)),
        "integer" => matches!(value, Val::Int(_)),
        "float" => matches!(value, Val::Float(_)),
        "number" => value.as_number().is_some(),
        "string" => matches!(value, Val::Str(_)),
        "mapping" => matches!(value, Val::Dict(_)),
        "sequence" => is_sequence(value),
        "iterable" => is_sequence(value) || matches!(value, Val::Loop(_)),
        "callable" => matches!(value, Val::Macro(_) | Val::Function(_) | Val::Method(_)),
        "escaped" => false,
        "filter" => filters::NAMES.contains(&&*value.to_text()),
        "test" => NAMES.contains(&&*value.to_text()),
        "odd" => !remainder(value, 2)?,
        "even" => remainder(value, 2)?,
        "divisibleby" => ops::arithmetic("%", value, argument(name, args)?)?.equals(&Val::Int(0)),
        "lower" => is_case(&value.to_text(), char::is_lowercase, char::is_uppercase),
        "upper" => is_case(&value.to_text(), char::is_uppercase, char::is_lowercase),
        "in" => ops::contains(argument(name, args)?, value)?,
        "sameas" => is_same(value, argument(name, args)?),
        "eq" | "equalto" | "==" => value.equals(argument(name, args)?),
        "ne" | "!=" => !value.equals(argument(name, args)?),
        "lt" | "lessthan" => value.compare(argument(name, args)?, "<")? == Ordering::Less,
        "le" => value.compare(argument(name, args)?, "<=")? != Ordering::Greater,
        "gt" | "greaterthan" => value.compare(argument(name, args)?, ">")? == Ordering::Greater,
        "ge" => value.compare(argument(name, args)?, ">=")? != Ordering::Less,
        _ => return Err(Fault::invalid(format!("no test named '{name}'"))),
    })
}

const NAMES: [&str; 31] = [
    "defined",
    "undefined",
    "none",
    "boolean",
    "true",
    "false",
    "integer",
    "float",
    "number",
    "string",
    "mapping",
    "sequence",
    "iterable",
    "callable",
    "escaped",
    "filter",
    "test",
    "odd",
    "even",
    "divisibleby",
    "lower",
    "upper",
    "in",
    "sameas",
    "eq",
    "equalto",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
];

/// Python's view: what has a length and items, an undefined value included.
fn is_sequence(value: &Val) -> bool {
    matches!(value, Val::Str(_) | Val::List(_) | Val::Tuple(_) | Val::Dict(_) | Val::Undef(_))
}

/// str.islower() and str.isupper(): at least one cased character and none of the other case.
fn is_case(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

fn is_same(a: &Val, b: &Val) -> bool {
    a.type_name() == b.type_name() && a.equals(b)
}
