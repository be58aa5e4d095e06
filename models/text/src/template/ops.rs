//! Python's operators on template values. Sizes are checked by the caller (Run::reserve).

use std::rc::Rc;

use super::value::{Key, Val};
use crate::fault::{Fault, Outcome};

fn unsupported(sign: &str, a: &Val, b: &Val) -> Fault {
    let (a, b) = (a.type_name(), b.type_name());
    Fault::invalid(format!("unsupported operand type(s) for {sign}: '{a}' and '{b}'"))
}

fn overflow() -> Fault {
    Fault::invalid("integer result with more than 38 digits")
}

/// A Python index into a sequence of `len`: negative counts from the end.
pub fn position(index: i128, len: usize) -> Option<usize> {
    let len = len as i128;
    let at = if index < 0 { index + len } else { index };
    (0..len).contains(&at).then_some(at as usize)
}

pub fn negate(value: &Val) -> Outcome<Val> {
    match value {
        Val::Float(f) => Ok(Val::Float(-f)),
        Val::Undef(why) => Err(Fault::invalid(why.to_string())),
        other => match other.as_int() {
            Some(i) => i.checked_neg().map(Val::Int).ok_or_else(overflow),
            None => {
                let name = other.type_name();
                Err(Fault::invalid(format!("bad operand type for unary -: '{name}'")))
            }
        },
    }
}

pub fn add(a: &Val, b: &Val) -> Outcome<Val> {
    match (a, b) {
        (Val::Str(x), Val::Str(y)) => Ok(Val::Str([x.as_ref(), y.as_ref()].concat().into())),
        (Val::List(x), Val::List(y)) => Ok(Val::list(x.iter().chain(y.iter()).cloned().collect())),
        (Val::Tuple(x), Val::Tuple(y)) => {
            Ok(Val::tuple(x.iter().chain(y.iter()).cloned().collect()))
        }
        (Val::Undef(why), _) | (_, Val::Undef(why)) => Err(Fault::invalid(why.to_string())),
        (Val::Str(_), other) => {
            let name = other.type_name();
            Err(Fault::invalid(format!("can only concatenate str (not \"{name}\") to str")))
        }
        _ => arithmetic("+", a, b),
    }
}

pub fn multiply(a: &Val, b: &Val) -> Outcome<Val> {
    let repeat = |items: &[Val], n: i128| -> Vec<Val> {
        (0..n.max(0)).flat_map(|_| items.iter().cloned()).collect()
    };
    match (a, b) {
        (Val::Str(s), n) | (n, Val::Str(s)) if n.as_int().is_some() => {
            let times = n.as_int().unwrap_or(0).max(0);
            Ok(Val::Str(if s.is_empty() { "".into() } else { s.repeat(times as usize).into() }))
        }
        (Val::List(x), n) | (n, Val::List(x)) if n.as_int().is_some() => {
            let times = if x.is_empty() { 0 } else { n.as_int().unwrap_or(0) };
            Ok(Val::list(repeat(x, times)))
        }
        (Val::Tuple(x), n) | (n, Val::Tuple(x)) if n.as_int().is_some() => {
            let times = if x.is_empty() { 0 } else { n.as_int().unwrap_or(0) };
            Ok(Val::tuple(repeat(x, times)))
        }
        _ => arithmetic("*", a, b),
    }
}

pub fn arithmetic(sign: &str, a: &Val, b: &Val) -> Outcome<Val> {
    if let (Val::Undef(why), _) | (_, Val::Undef(why)) = (a, b) {
        return Err(Fault::invalid(why.to_string()));
    }
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        if let Some(result) = int_arithmetic(sign, x, y)? {
            return Ok(Val::Int(result));
        }
    }
    let (Some(x), Some(y)) = (a.as_number(), b.as_number()) else {
        return Err(unsupported(sign, a, b));
    };
    if y == 0.0 && matches!(sign, "/" | "//" | "%") {
        return Err(Fault::invalid("division by zero"));
    }
    Ok(Val::Float(match sign {
        "+" => x + y,
        "-" => x - y,
        "*" => x * y,
        "/" => x / y,
        "//" => (x / y).floor(),
        "%" => x - y * (x / y).floor(),
        _ => x.powf(y),
    }))
}

/// None where Python's result is a float.
fn int_arithmetic(sign: &str, x: i128, y: i128) -> Outcome<Option<i128>> {
    let result = match sign {
        "+" => x.checked_add(y),
        "-" => x.checked_sub(y),
        "*" => x.checked_mul(y),
        "//" | "%" => {
            if y == 0 {
                return Err(Fault::invalid("division by zero"));
            }
            let (quotient, rest) = (x.checked_div(y), x.checked_rem(y));
            let adjust = rest.is_some_and(|r| r != 0 && ((r < 0) != (y < 0)));
            if sign == "//" {
                quotient.map(|q| if adjust { q - 1 } else { q })
            } else {
                rest.map(|r| if adjust { r + y } else { r })
            }
        }
        "**" if y >= 0 => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
        _ => return Ok(None),
    };
    result.map(Some).ok_or_else(overflow)
}

pub fn contains(container: &Val, needle: &Val) -> Outcome<bool> {
    match container {
        Val::Str(text) => match needle {
            Val::Str(part) => Ok(text.contains(part.as_ref())),
            other => {
                let name = other.type_name();
                let message = format!("'in <string>' requires string as left operand, not {name}");
                Err(Fault::invalid(message))
            }
        },
        Val::List(items) | Val::Tuple(items) => Ok(items.iter().any(|i| i.equals(needle))),
        Val::Dict(dict) => Ok(dict.contains_key(&Key::from_val(needle)?)),
        Val::Undef(_) => Ok(false),
        other => {
            let name = other.type_name();
            Err(Fault::invalid(format!("argument of type '{name}' is not iterable")))
        }
    }
}

/// The indices a Python slice takes, in its order.
fn slice_indices(
    len: usize,
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
) -> impl Iterator<Item = usize> {
    let len = len as i128;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |at: Option<i128>, default: i128| match at {
        None => default,
        Some(at) if at < 0 => at.saturating_add(len).clamp(low, high),
        Some(at) => at.clamp(low, high),
    };
    let first = clamp(start, if step > 0 { 0 } else { high });
    let end = clamp(stop, if step > 0 { high } else { -1 });
    let mut at = first;
    std::iter::from_fn(move || {
        let inside = if step > 0 { at < end } else { at > end };
        let index = at;
        at = at.saturating_add(step);
        inside.then_some(index as usize)
    })
}

pub fn slice(
    value: &Val,
    start: Option<i128>,
    stop: Option<i128>,
    step: Option<i128>,
) -> Outcome<Val> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Fault::invalid("slice step cannot be zero"));
    }
    let pick = |items: &[Val]| -> Vec<Val> {
        slice_indices(items.len(), start, stop, step).map(|i| items[i].clone()).collect()
    };
    match value {
        Val::Str(text) => {
            let chars: Vec<char> = text.chars().collect();
            let picked = slice_indices(chars.len(), start, stop, step).map(|i| chars[i]);
            Ok(Val::Str(Rc::from(picked.collect::<String>())))
        }
        Val::List(items) => Ok(Val::list(pick(items))),
        Val::Tuple(items) => Ok(Val::tuple(pick(items))),
        Val::Undef(why) => Err(Fault::invalid(why.to_string())),
        other => {
            Err(Fault::invalid(format!("'{}' object is not subscriptable", other.type_name())))
        }
    }
}
