//! Methods of Python's str, list, tuple and dict. The ones that change a value are refused, as
//! Jinja2's immutable sandbox refuses them.

use super::eval::{CallArgs, LoopState};
use super::run::Run;
use super::text;
use super::value::{Dict, Key, Val};
use super::{ops, printf};
use crate::fault::{Fault, Outcome};

const STR: [&str; 40] = [
    "capitalize",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
    "encode",
];
const DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const DICT_MUTATING: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const LIST: [&str; 3] = ["copy", "count", "index"];
const LIST_MUTATING: [&str; 8] =
    ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];

pub fn has(value: &Val, name: &str) -> bool {
    match value {
        Val::Str(_) => STR.contains(&name),
        Val::Dict(_) => DICT.contains(&name) || DICT_MUTATING.contains(&name),
        Val::List(_) => LIST.contains(&name) || LIST_MUTATING.contains(&name),
        Val::Tuple(_) => name == "count" || name == "index",
        _ => false,
    }
}

pub fn call(run: &mut Run<'_>, target: &Val, name: &str, args: CallArgs) -> Outcome<Val> {
    match target {
        Val::Str(s) => str_method(run, s, name, args),
        Val::Dict(dict) => dict_method(run, dict, name, &args.pos),
        Val::List(items) | Val::Tuple(items) => {
            let is_list = matches!(target, Val::List(_));
            list_method(run, items, is_list, name, &args.pos)
        }
        Val::Loop(state) => loop_method(state, name, args.pos),
        _ => Err(Fault::invalid(format!("'{}' has no method '{name}'", target.type_name()))),
    }
}

fn unsafe_call(what: &str, name: &str) -> Fault {
    Fault::invalid(format!("a chat template may not change a {what}: .{name}() is refused"))
}

fn dict_method(run: &mut Run<'_>, dict: &Dict, name: &str, args: &[Val]) -> Outcome<Val> {
    if name != "get" {
        run.burn(dict.len() as u64)?;
    }
    Ok(match name {
        "copy" => Val::dict(dict.clone()),
        "get" => {
            let [key, rest @ ..] = args else {
                return Err(Fault::invalid("get expected at least 1 argument, got 0"));
            };
            let found = dict.get(&Key::from_val(key)?).cloned();
            found.unwrap_or_else(|| rest.first().cloned().unwrap_or(Val::None))
        }
        "items" => items(dict),
        "keys" => Val::list(dict.keys().map(Key::to_val).collect()),
        "values" => Val::list(dict.values().cloned().collect()),
        _ => return Err(unsafe_call("dict", name)),
    })
}

pub fn items(dict: &Dict) -> Val {
    Val::list(dict.iter().map(|(k, v)| Val::tuple(vec![k.to_val(), v.clone()])).collect())
}

fn list_method(
    run: &mut Run<'_>,
    items: &[Val],
    is_list: bool,
    name: &str,
    args: &[Val],
) -> Outcome<Val> {
    let weight: u64 = items.iter().map(Val::weight).sum();
    run.burn(items.len() as u64 + weight / 16)?;
    let needle = || args.first().ok_or_else(|| Fault::invalid(format!("{name}() needs a value")));
    match name {
        "copy" if is_list => Ok(Val::list(items.to_vec())),
        "count" => {
            let needle = needle()?;
            Ok(Val::Int(items.iter().filter(|i| i.equals(needle)).count() as i128))
        }
        "index" => {
            let needle = needle()?;
            let at = items.iter().position(|i| i.equals(needle));
            let at = at.ok_or_else(|| Fault::invalid("value is not in list"))?;
            Ok(Val::Int(at as i128))
        }
        _ => Err(unsafe_call("list", name)),
    }
}

fn loop_method(state: &LoopState, name: &str, args: Vec<Val>) -> Outcome<Val> {
    if name == "cycle" {
        if args.is_empty() {
            return Err(Fault::invalid("no items for cycling given"));
        }
        return Ok(args[state.index % args.len()].clone());
    }
    let mut seen = state.changed.borrow_mut();
    let same = seen.as_ref().is_some_and(|old| {
        old.len() == args.len() && old.iter().zip(&args).all(|(a, b)| a.equals(b))
    });
    *seen = Some(args);
    Ok(Val::Bool(!same))
}

struct Args<'v> {
    method: &'v str,
    values: &'v CallArgs,
}

impl<'v> Args<'v> {
    fn get(&self, index: usize, name: &str) -> Option<&'v Val> {
        let named = || self.values.named.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        self.values.pos.get(index).or_else(named)
    }

    fn text(&self, index: usize, name: &str) -> Outcome<&'v str> {
        match self.get(index, name) {
            Some(Val::Str(s)) => Ok(s),
            Some(Val::Undef(why)) => Err(Fault::invalid(why.to_string())),
            Some(other) => {
                let (method, type_name) = (self.method, other.type_name());
                Err(Fault::invalid(format!("{method}() argument must be str, not {type_name}")))
            }
            None => Err(Fault::invalid(format!("{}() needs an argument", self.method))),
        }
    }

    /// Absent or None gives None.
    fn maybe_text(&self, index: usize, name: &str) -> Outcome<Option<&'v str>> {
        match self.get(index, name) {
            None | Some(Val::None) => Ok(None),
            Some(_) => self.text(index, name).map(Some),
        }
    }

    fn int(&self, index: usize, name: &str, default: i128) -> Outcome<i128> {
        match self.get(index, name) {
            None => Ok(default),
            Some(value) => value
                .as_int()
                .ok_or_else(|| Fault::invalid(format!("{}() needs an integer", self.method))),
        }
    }

    /// The prefixes of startswith: a string or a tuple of strings.
    fn affixes(&self) -> Outcome<Vec<String>> {
        match self.get(0, "prefix") {
            Some(Val::Tuple(items)) => Ok(items.iter().map(|i| i.to_text().to_string()).collect()),
            _ => Ok(vec![self.text(0, "prefix")?.to_owned()]),
        }
    }

    /// The part of `s` between the optional arguments start and end, and where it begins.
    fn window(&self, s: &str) -> Outcome<(String, usize)> {
        let start = self.int(1, "start", 0)?;
        let end = match self.get(2, "end") {
            None | Some(Val::None) => None,
            Some(_) => Some(self.int(2, "end", 0)?),
        };
        let part = ops::slice(&Val::str(s), Some(start), end, None)?.to_text().to_string();
        let length = s.chars().count() as i128;
        let from = if start < 0 { (start + length).max(0) } else { start.min(length) };
        Ok((part, from as usize))
    }
}

fn str_method(run: &mut Run<'_>, s: &str, name: &str, values: CallArgs) -> Outcome<Val> {
    run.burn(s.len() as u64 / 16)?;
    let args = Args { method: name, values: &values };
    let text = match name {
        "capitalize" => text::capitalize(s),
        "lower" => s.to_lowercase(),
        "upper" => s.to_uppercase(),
        "title" => text::title(s),
        "swapcase" => text::swapcase(s),
        "strip" => text::strip(s, args.maybe_text(0, "chars")?, true, true).to_owned(),
        "lstrip" => text::strip(s, args.maybe_text(0, "chars")?, true, false).to_owned(),
        "rstrip" => text::strip(s, args.maybe_text(0, "chars")?, false, true).to_owned(),
        "removeprefix" => s.strip_prefix(args.text(0, "prefix")?).unwrap_or(s).to_owned(),
        "removesuffix" => s.strip_suffix(args.text(0, "suffix")?).unwrap_or(s).to_owned(),
        "replace" => {
            let (old, new) = (args.text(0, "old")?, args.text(1, "new")?);
            let count = args.int(2, "count", -1)?;
            let hits = if old.is_empty() { s.len() + 1 } else { s.matches(old).count() };
            run.reserve(s.len() as u128 + hits as u128 * new.len() as u128)?;
            match usize::try_from(count) {
                Ok(count) => s.replacen(old, new, count),
                Err(_) => s.replace(old, new),
            }
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let width = args.int(0, "width", 0)?.max(0);
            run.reserve(4 * width as u128)?;
            let fill = args.maybe_text(1, "fillchar")?.unwrap_or(" ");
            text::justify(s, name, width as usize, fill.chars().next().unwrap_or(' '))
        }
        "join" => {
            let Some(parts) = args.get(0, "iterable") else {
                return Err(Fault::invalid("join() needs an iterable"));
            };
            {
                let parts = run.iterate(parts)?;
                join(run, s, &parts, true)?
            }
        }
        "format" => {
            let named = values.named.iter().map(|(k, v)| (Key::Str(k.as_str().into()), v.clone()));
            printf::braces(run, s, &values.pos, &named.collect())?
        }
        _ => return str_query(run, s, name, &args),
    };
    Ok(Val::Str(text.into()))
}

/// Joins texts; `strict` refuses what is not a string, as str.join does.
pub fn join(run: &mut Run<'_>, separator: &str, parts: &[Val], strict: bool) -> Outcome<String> {
    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        if strict && !matches!(part, Val::Str(_)) {
            let name = part.type_name();
            let message = format!("sequence item {i}: expected str instance, {name} found");
            return Err(Fault::invalid(message));
        }
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(&run.text(part)?);
        run.reserve(out.len() as u128)?;
    }
    Ok(out)
}

/// Methods whose result is not one string.
fn str_query(run: &mut Run<'_>, s: &str, name: &str, args: &Args<'_>) -> Outcome<Val> {
    let strings = |parts: Vec<&str>| Val::list(parts.into_iter().map(Val::str).collect());
    Ok(match name {
        "startswith" => {
            let (part, _) = args.window(s)?;
            Val::Bool(args.affixes()?.iter().any(|p| part.starts_with(p)))
        }
        "endswith" => {
            let (part, _) = args.window(s)?;
            Val::Bool(args.affixes()?.iter().any(|p| part.ends_with(p)))
        }
        "split" | "rsplit" => {
            let separator = args.maybe_text(0, "sep")?;
            let most = usize::try_from(args.int(1, "maxsplit", -1)?).ok();
            if separator == Some("") {
                return Err(Fault::invalid("empty separator"));
            }
            run.burn(s.len() as u64)?;
            strings(text::split(s, separator, most, name == "rsplit"))
        }
        "splitlines" => {
            let keep = args.get(0, "keepends").is_some_and(Val::truth);
            strings(text::split_lines(s, keep))
        }
        "partition" | "rpartition" => partition(s, args.text(0, "sep")?, name == "rpartition"),
        "find" | "rfind" | "index" | "rindex" => {
            let needle = args.text(0, "sub")?;
            let (part, from) = args.window(s)?;
            let at = if name.starts_with('r') { part.rfind(needle) } else { part.find(needle) };
            match at {
                Some(at) => Val::Int((from + part[..at].chars().count()) as i128),
                None if name.ends_with("index") => {
                    return Err(Fault::invalid("substring not found"));
                }
                None => Val::Int(-1),
            }
        }
        "count" => {
            let needle = args.text(0, "sub")?;
            let (part, _) = args.window(s)?;
            let count = if needle.is_empty() {
                part.chars().count() + 1
            } else {
                part.matches(needle).count()
            };
            Val::Int(count as i128)
        }
        "encode" => return Err(Fault::invalid("str.encode() is not supported in chat templates")),
        _ => Val::Bool(text::is_kind(s, name)),
    })
}

fn partition(s: &str, separator: &str, from_right: bool) -> Val {
    let found = if from_right { s.rsplit_once(separator) } else { s.split_once(separator) };
    let (before, middle, after) = match found {
        Some((before, after)) => (before, separator, after),
        None if from_right => ("", "", s),
        None => (s, "", ""),
    };
    Val::tuple(vec![Val::str(before), Val::str(middle), Val::str(after)])
}
