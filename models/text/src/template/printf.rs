//! Python's two string formats, as far as templates use them: `"%s: %d" % x` and `"{}".format(x)`.

use super::run::Run;
use super::value::{get_str, Dict, Val};
use crate::fault::{Fault, Outcome};

struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Outcome<usize> {
    let mut value = 0usize;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        value = value * 10 + digit as usize;
        if value > 10_000 {
            return Err(Fault::invalid("format width or precision above 10000"));
        }
        chars.next();
    }
    Ok(value)
}

fn pad(mut text: String, spec: &Spec, numeric: bool) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    if spec.left {
        text.push_str(&" ".repeat(missing));
    } else if spec.zero && numeric {
        let sign = usize::from(text.starts_with(['-', '+']));
        text.insert_str(sign, &"0".repeat(missing));
    } else {
        text.insert_str(0, &" ".repeat(missing));
    }
    text
}

fn convert(code: char, value: &Val, spec: &Spec) -> Outcome<String> {
    let plus = |text: String| {
        if spec.plus && !text.starts_with('-') {
            format!("+{text}")
        } else {
            text
        }
    };
    let wrong = || {
        let name = value.type_name();
        Fault::invalid(format!("%{code} format: a number is required, not {name}"))
    };
    Ok(match code {
        's' | 'r' | 'a' => {
            let mut text = String::new();
            if code == 's' {
                text.push_str(&value.to_text());
            } else {
                value.repr_into(&mut text);
            }
            if let Some(precision) = spec.precision {
                text = text.chars().take(precision).collect();
            }
            pad(text, spec, false)
        }
        'd' | 'i' | 'u' => {
            let int = value.as_int().or(value.as_number().map(|f| f as i128));
            pad(plus(int.ok_or_else(wrong)?.to_string()), spec, true)
        }
        'x' => pad(plus(format!("{:x}", value.as_int().ok_or_else(wrong)?)), spec, true),
        'X' => pad(plus(format!("{:X}", value.as_int().ok_or_else(wrong)?)), spec, true),
        'o' => pad(plus(format!("{:o}", value.as_int().ok_or_else(wrong)?)), spec, true),
        'f' | 'F' => {
            let float = value.as_number().ok_or_else(wrong)?;
            pad(plus(format!("{float:.*}", spec.precision.unwrap_or(6))), spec, true)
        }
        other => return Err(Fault::invalid(format!("unsupported format character '{other}'"))),
    })
}

pub fn format(run: &mut Run<'_>, text: &str, args: &Val) -> Outcome<String> {
    let mut values = match args {
        Val::Tuple(items) => items.inner.clone(),
        other => vec![other.clone()],
    }
    .into_iter();
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut named = None;
        if chars.peek() == Some(&'(') {
            chars.next();
            let name: String = chars.by_ref().take_while(|c| *c != ')').collect();
            let Val::Dict(dict) = args else {
                return Err(Fault::invalid("format requires a mapping"));
            };
            let value = get_str(dict, &name).cloned();
            named = Some(value.ok_or_else(|| Fault::invalid(format!("format: no key '{name}'")))?);
        }
        let mut spec = Spec { left: false, zero: false, plus: false, width: 0, precision: None };
        while let Some(flag @ ('-' | '0' | '+' | ' ')) = chars.peek().copied() {
            chars.next();
            spec.left |= flag == '-';
            spec.zero |= flag == '0';
            spec.plus |= flag == '+';
        }
        spec.width = number(&mut chars)?;
        if chars.peek() == Some(&'.') {
            chars.next();
            spec.precision = Some(number(&mut chars)?);
        }
        let code = chars.next().ok_or_else(|| Fault::invalid("incomplete format"))?;
        if code == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => values
                .next()
                .ok_or_else(|| Fault::invalid("not enough arguments for format string"))?,
        };
        let piece = convert(code, &value, &spec)?;
        run.reserve(piece.len() as u128)?;
        out.push_str(&piece);
        run.reserve(out.len() as u128)?;
    }
    if values.next().is_some() && !matches!(args, Val::Dict(_)) {
        return Err(Fault::invalid("not all arguments converted during string formatting"));
    }
    Ok(out)
}

/// "{} {0} {name}".format(...), without format specifications.
pub fn braces(run: &mut Run<'_>, text: &str, pos: &[Val], named: &Dict) -> Outcome<String> {
    let mut out = String::new();
    let (mut next, mut numbered) = (0, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if (c == '{' || c == '}') && chars.peek() == Some(&c) {
            chars.next();
            out.push(c);
        } else if c == '{' {
            let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
            numbered |= name.parse::<usize>().is_ok();
            if numbered && (next > 0 || name.is_empty()) {
                return Err(Fault::invalid("format: either {} or {0}, not both"));
            }
            let value = if name.is_empty() {
                next += 1;
                pos.get(next - 1)
            } else if let Ok(index) = name.parse::<usize>() {
                pos.get(index)
            } else {
                get_str(named, &name)
            };
            let message = || format!("format: no value for '{{{name}}}'");
            let piece = value.ok_or_else(|| Fault::invalid(message()))?.to_text();
            out.push_str(&piece);
            run.reserve(out.len() as u128)?;
        } else {
            out.push(c);
        }
    }
    Ok(out)
}
