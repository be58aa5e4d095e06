//! Jinja2's filters on single values; the ones over sequences are in sequences.rs.

use super::eval::CallArgs;
use super::float::round_to;
use super::json::Dump;
use super::run::Run;
use super::value::Val;
use super::{methods, printf, sequences, text};
use crate::fault::{Fault, Outcome};

pub const NAMES: [&str; 45] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "wordcount",
    "slice",
];

/// Whether a filter looks at all of its input, not only at how many items there are.
pub fn reads_value(name: &str, value: &Val) -> bool {
    let counts = ["count", "d", "default", "first", "items", "last", "length", "list", "reverse"];
    matches!(value, Val::Str(_)) || !counts.contains(&name)
}

impl CallArgs {
    pub fn get(&self, index: usize, name: &str) -> Option<&Val> {
        let named = || self.named.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        self.pos.get(index).or_else(named)
    }

    pub fn flag(&self, index: usize, name: &str, default: bool) -> bool {
        self.get(index, name).map_or(default, Val::truth)
    }

    pub fn int(&self, index: usize, name: &str, default: i128) -> Outcome<i128> {
        match self.get(index, name) {
            None => Ok(default),
            Some(value) => value
                .as_int()
                .ok_or_else(|| Fault::invalid(format!("argument '{name}' must be an integer"))),
        }
    }
}

pub fn apply(run: &mut Run<'_>, name: &str, value: Val, args: CallArgs) -> Outcome<Val> {
    let texted = match name {
        "capitalize" => text::capitalize(&value.to_text()),
        "lower" => value.to_text().to_lowercase(),
        "upper" => value.to_text().to_uppercase(),
        "title" => text::title_filter(&value.to_text()),
        "string" | "safe" => return Ok(Val::Str(value.to_text())),
        "e" | "escape" | "forceescape" => text::escape_html(&value.to_text()),
        "trim" => trim(&value, &args)?,
        "center" => {
            let width = args.int(0, "width", 80)?.max(0);
            run.reserve(width as u128)?;
            let s = value.to_text();
            text::justify(&s, "center", width as usize, ' ')
        }
        "replace" => {
            let (old, new) = (args.get(0, "old"), args.get(1, "new"));
            let (Some(old), Some(new)) = (old, new) else {
                return Err(Fault::invalid("replace needs the old and the new text"));
            };
            let pos = vec![Val::Str(old.to_text()), Val::Str(new.to_text())];
            let count = args.get(2, "count").filter(|v| !matches!(v, Val::None)).cloned();
            let pos = pos.into_iter().chain(count).collect();
            let args = CallArgs { pos, named: Vec::new() };
            return methods::call(run, &Val::Str(value.to_text()), "replace", args);
        }
        "format" => {
            let values = if args.named.is_empty() {
                Val::tuple(args.pos)
            } else {
                let named =
                    args.named.into_iter().map(|(k, v)| (super::value::Key::Str(k.into()), v));
                Val::dict(named.collect())
            };
            printf::format(run, &value.to_text(), &values)?
        }
        "indent" => indent(run, &value, &args)?,
        "tojson" => tojson(run, &value, &args)?,
        "join" => sequences::join(run, &value, &args)?,
        _ => return valued(run, name, value, args),
    };
    Ok(Val::Str(texted.into()))
}

fn valued(run: &mut Run<'_>, name: &str, value: Val, args: CallArgs) -> Outcome<Val> {
    Ok(match name {
        "d" | "default" => {
            let replace = matches!(value, Val::Undef(_))
                || (args.flag(1, "boolean", false) && !value.truth());
            match args.get(0, "default_value") {
                Some(other) if replace => other.clone(),
                None if replace => Val::str(""),
                _ => value,
            }
        }
        "abs" => match value {
            Val::Float(f) => Val::Float(f.abs()),
            ref other => match other.as_int() {
                Some(i) => Val::Int(i.saturating_abs()),
                None => return Err(Fault::invalid("abs needs a number")),
            },
        },
        "int" => int(&value, &args),
        "float" => float(&value, &args),
        "round" => round(&value, &args)?,
        "length" | "count" => {
            let length = value.len().ok_or_else(|| {
                Fault::invalid(format!("object of type '{}' has no len()", value.type_name()))
            })?;
            Val::Int(length as i128)
        }
        "wordcount" => Val::Int(text::split(&value.to_text(), None, None, false).len() as i128),
        "attr" => {
            let name = args.get(0, "name").map(Val::to_text).unwrap_or_default();
            match &value {
                // attr looks at attributes only, never at a dict's keys.
                Val::Dict(_) if !methods::has(&value, &name) => {
                    Val::undef(format!("'dict object' has no attribute '{name}'"))
                }
                other => super::lookup::attribute(other, &name)?,
            }
        }
        "items" => match &value {
            Val::Dict(dict) => methods::items(dict),
            Val::Undef(_) => Val::list(Vec::new()),
            _ => return Err(Fault::invalid("Can only get item pairs from a mapping.")),
        },
        _ => return sequences::apply(run, name, value, args),
    })
}

fn trim(value: &Val, args: &CallArgs) -> Outcome<String> {
    let chars = match args.get(0, "chars") {
        None | Some(Val::None) => None,
        Some(chars) => Some(chars.to_text()),
    };
    Ok(text::strip(&value.to_text(), chars.as_deref(), true, true).to_owned())
}

/// Jinja2's int(): what cannot be read gives the default.
fn int(value: &Val, args: &CallArgs) -> Val {
    let default = args.get(0, "default").cloned().unwrap_or(Val::Int(0));
    match value {
        Val::Str(s) => {
            let s = text::strip(s, None, true, true).replace('_', "");
            match s.parse::<i128>() {
                Ok(int) => Val::Int(int),
                Err(_) => match s.parse::<f64>() {
                    Ok(float) if float.is_finite() => Val::Int(float as i128),
                    _ => default,
                },
            }
        }
        Val::Float(f) if f.is_finite() => Val::Int(*f as i128),
        other => other.as_int().map_or(default, Val::Int),
    }
}

fn float(value: &Val, args: &CallArgs) -> Val {
    let default = args.get(0, "default").cloned().unwrap_or(Val::Float(0.0));
    match value {
        Val::Str(s) => text::strip(s, None, true, true).parse().map_or(default, Val::Float),
        other => other.as_number().map_or(default, Val::Float),
    }
}

fn round(value: &Val, args: &CallArgs) -> Outcome<Val> {
    let Some(number) = value.as_number() else {
        return Err(Fault::invalid("round needs a number"));
    };
    let digits = args.int(0, "precision", 0)?.clamp(-300, 300) as i32;
    let method = args.get(1, "method").map(Val::to_text);
    match method.as_deref().unwrap_or("common") {
        "common" => Ok(match value.as_int() {
            Some(int) if digits >= 0 => Val::Int(int),
            _ => Val::Float(round_to(number, digits)),
        }),
        "ceil" => Ok(Val::Float((number * 10f64.powi(digits)).ceil() / 10f64.powi(digits))),
        "floor" => Ok(Val::Float((number * 10f64.powi(digits)).floor() / 10f64.powi(digits))),
        other => Err(Fault::invalid(format!("round: unknown method '{other}'"))),
    }
}

fn indent(run: &mut Run<'_>, value: &Val, args: &CallArgs) -> Outcome<String> {
    let prefix = match args.get(0, "width") {
        Some(Val::Str(s)) => s.to_string(),
        Some(other) => {
            let width = other.as_int().unwrap_or(4).max(0);
            run.reserve(width as u128)?;
            " ".repeat(width as usize)
        }
        None => "    ".to_owned(),
    };
    let (first, blank) = (args.flag(1, "first", false), args.flag(2, "blank", false));
    let source = value.to_text().to_string() + "\n";
    let lines = text::split_lines(&source, false);
    run.reserve(source.len() as u128 + lines.len() as u128 * prefix.len() as u128)?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let wanted = if i == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            out.push_str(&prefix);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// json.dumps with the options Hugging Face's filter takes.
/// Source: transformers, utils/chat_template_utils.py (tojson).
fn tojson(run: &mut Run<'_>, value: &Val, args: &CallArgs) -> Outcome<String> {
    let indent = match args.get(1, "indent") {
        None | Some(Val::None) => None,
        Some(Val::Str(s)) => Some(s.to_string()),
        Some(other) => {
            let width = other.as_int().unwrap_or(0).clamp(0, 64);
            Some(" ".repeat(width as usize))
        }
    };
    let mut item_separator = if indent.is_some() { "," } else { ", " }.to_owned();
    let mut key_separator = ": ".to_owned();
    if let Some(separators) = args.get(2, "separators").filter(|v| !matches!(v, Val::None)) {
        let parts = separators.iterate()?;
        let [item, key] = parts.as_slice() else {
            return Err(Fault::invalid("tojson: separators must be a pair"));
        };
        item_separator = item.to_text().to_string();
        key_separator = key.to_text().to_string();
    }
    let dump = Dump {
        ensure_ascii: args.flag(0, "ensure_ascii", false),
        sort_keys: args.flag(3, "sort_keys", false),
        indent,
        item_separator,
        key_separator,
    };
    let mut out = String::new();
    dump.write(value, 0, &mut out)?;
    run.reserve(out.len() as u128)?;
    Ok(out)
}
