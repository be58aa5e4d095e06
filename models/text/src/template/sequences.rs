//! Jinja2's filters over sequences. Those that are generators in Python give lists here.

use std::cmp::Ordering;

use super::eval::CallArgs;
use super::run::Run;
use super::value::{Dict, Key, Val};
use super::{lookup, methods, ops, tests};
use crate::fault::{Fault, Outcome};

pub fn apply(run: &mut Run<'_>, name: &str, value: Val, args: CallArgs) -> Outcome<Val> {
    if name == "reverse" {
        if let Val::Str(s) = &value {
            return Ok(Val::str(s.chars().rev().collect::<String>()));
        }
    }
    if name == "dictsort" {
        return dictsort(&value, &args);
    }
    if !super::filters::NAMES.contains(&name) {
        return Err(Fault::invalid(format!("no filter named '{name}'")));
    }
    let mut items = run.iterate(&value)?;
    if matches!(name, "sort" | "groupby" | "unique" | "max" | "min") {
        // Comparisons read items up to log2(n) times.
        let rounds = u64::from(items.len().max(2).ilog2());
        run.burn((value.weight() / 16).saturating_mul(rounds))?;
    }
    Ok(match name {
        "first" | "last" => {
            let found = if name == "first" { items.first() } else { items.last() };
            let why = || Val::undef(format!("no {name} item, sequence was empty"));
            found.cloned().unwrap_or_else(why)
        }
        "list" => Val::list(items),
        "reverse" => {
            items.reverse();
            Val::list(items)
        }
        "map" => map(run, items, args)?,
        "select" | "reject" | "selectattr" | "rejectattr" => Val::list(select(name, items, &args)?),
        "max" | "min" => extreme(name, items, &args)?,
        "sort" => {
            let (reverse, case) =
                (args.flag(0, "reverse", false), args.flag(1, "case_sensitive", false));
            let attribute = args.get(2, "attribute").cloned();
            Val::list(sorted(items, attribute.as_ref(), case, reverse)?)
        }
        "sum" => {
            let mut total = args.get(1, "start").cloned().unwrap_or(Val::Int(0));
            let attribute = args.get(0, "attribute").cloned();
            for item in &items {
                total = ops::add(&total, &path(item, attribute.as_ref())?)?;
                run.charge(&total)?;
            }
            total
        }
        "unique" => unique(items, &args)?,
        "groupby" => groupby(items, &args)?,
        "batch" => batch(items, &args)?,
        _ => slices(items, &args)?,
    })
}

/// Follows "a.b.0" or an index into an item, as Jinja2's attribute arguments do.
fn path(item: &Val, attribute: Option<&Val>) -> Outcome<Val> {
    match attribute {
        None | Some(Val::None) => Ok(item.clone()),
        Some(Val::Str(name)) => {
            let mut value = item.clone();
            for part in name.split('.') {
                let key = part.parse().map_or_else(|_| Val::str(part), Val::Int);
                value = lookup::item(&value, &key)?;
            }
            Ok(value)
        }
        Some(index) => lookup::item(item, index),
    }
}

fn folded(value: &Val, case_sensitive: bool) -> Val {
    match value {
        Val::Str(s) if !case_sensitive => Val::str(s.to_lowercase()),
        other => other.clone(),
    }
}

fn sorted(
    items: Vec<Val>,
    attribute: Option<&Val>,
    case_sensitive: bool,
    reverse: bool,
) -> Outcome<Vec<Val>> {
    let mut keyed = Vec::new();
    for item in items {
        let key = match attribute {
            Some(Val::Str(names)) if names.contains(',') => {
                let mut parts = Vec::new();
                for name in names.split(',') {
                    let part = path(&item, Some(&Val::str(name.trim())))?;
                    parts.push(folded(&part, case_sensitive));
                }
                Val::tuple(parts)
            }
            _ => folded(&path(&item, attribute)?, case_sensitive),
        };
        keyed.push((key, item));
    }
    let mut fault = None;
    keyed.sort_by(|a, b| {
        let (x, y) = if reverse { (b, a) } else { (a, b) };
        x.0.compare(&y.0, "<").unwrap_or_else(|e| {
            fault.get_or_insert(e);
            Ordering::Equal
        })
    });
    match fault {
        Some(fault) => Err(fault),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

fn map(run: &mut Run<'_>, items: Vec<Val>, mut args: CallArgs) -> Outcome<Val> {
    let attribute = args.named.iter().find(|(name, _)| name == "attribute").map(|(_, v)| v.clone());
    let mut out = Vec::new();
    if let Some(attribute) = attribute {
        let default = args.named.into_iter().find(|(name, _)| name == "default").map(|(_, v)| v);
        for item in &items {
            let value = path(item, Some(&attribute))?;
            out.push(match (&value, &default) {
                (Val::Undef(_), Some(default)) => default.clone(),
                _ => value,
            });
        }
        return Ok(Val::list(out));
    }
    if args.pos.is_empty() {
        return Err(Fault::invalid("map requires a filter argument"));
    }
    let filter = args.pos.remove(0).to_text();
    for item in items {
        let args = CallArgs { pos: args.pos.clone(), named: args.named.clone() };
        out.push(run.filter(&filter, item, args)?);
    }
    Ok(Val::list(out))
}

fn select(name: &str, items: Vec<Val>, args: &CallArgs) -> Outcome<Vec<Val>> {
    let by_attribute = name.ends_with("attr");
    let wanted = name.starts_with("select");
    let mut rest = args.pos.as_slice();
    let mut attribute = None;
    if by_attribute {
        let [first, others @ ..] = rest else {
            return Err(Fault::invalid(format!("{name} needs an attribute")));
        };
        attribute = Some(first);
        rest = others;
    }
    let mut kept = Vec::new();
    for item in items {
        let value = path(&item, attribute)?;
        let holds = match rest {
            [] => value.truth(),
            [test, test_args @ ..] => tests::apply(&test.to_text(), &value, test_args)?,
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    Ok(kept)
}

fn extreme(name: &str, items: Vec<Val>, args: &CallArgs) -> Outcome<Val> {
    let case = args.flag(0, "case_sensitive", false);
    let mut best: Option<(Val, Val)> = None;
    let wanted = if name == "max" { Ordering::Greater } else { Ordering::Less };
    for item in items {
        let key = folded(&path(&item, args.get(1, "attribute"))?, case);
        let better = match &best {
            None => true,
            Some((known, _)) => key.compare(known, "<")? == wanted,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Val::undef("no aggregated item, sequence was empty"), |(_, item)| item))
}

fn unique(items: Vec<Val>, args: &CallArgs) -> Outcome<Val> {
    let case = args.flag(0, "case_sensitive", false);
    let mut seen = Dict::new();
    let mut kept = Vec::new();
    for item in items {
        let key = Key::from_val(&folded(&path(&item, args.get(1, "attribute"))?, case))?;
        if seen.insert(key, Val::None).is_none() {
            kept.push(item);
        }
    }
    Ok(Val::list(kept))
}

fn groupby(items: Vec<Val>, args: &CallArgs) -> Outcome<Val> {
    let attribute = args.get(0, "attribute").cloned();
    let case = args.flag(2, "case_sensitive", false);
    let mut groups: Vec<(Val, Val, Vec<Val>)> = Vec::new();
    for item in sorted(items, attribute.as_ref(), case, false)? {
        let value = path(&item, attribute.as_ref())?;
        let key = folded(&value, case);
        match groups.last_mut() {
            Some((known, _, members)) if known.equals(&key) => members.push(item),
            _ => groups.push((key, value, vec![item])),
        }
    }
    let pairs =
        groups.into_iter().map(|(_, value, members)| Val::tuple(vec![value, Val::list(members)]));
    Ok(Val::list(pairs.collect()))
}

fn dictsort(value: &Val, args: &CallArgs) -> Outcome<Val> {
    let Val::Dict(dict) = value else {
        return Err(Fault::invalid("dictsort needs a mapping"));
    };
    let by_value = args.get(1, "by").is_some_and(|v| &*v.to_text() == "value");
    let Val::List(pairs) = methods::items(dict) else {
        return Ok(Val::list(Vec::new()));
    };
    let at = Val::Int(i128::from(by_value));
    let case = args.flag(0, "case_sensitive", false);
    let reverse = args.flag(2, "reverse", false);
    sorted(pairs.inner.clone(), Some(&at), case, reverse).map(Val::list)
}

fn batch(items: Vec<Val>, args: &CallArgs) -> Outcome<Val> {
    let size = usize::try_from(args.int(0, "linecount", 0)?).unwrap_or(0).clamp(1, 1_000_000);
    let mut rows: Vec<Vec<Val>> = items.chunks(size).map(<[Val]>::to_vec).collect();
    let fill = args.get(1, "fill_with").filter(|v| !matches!(v, Val::None));
    if let (Some(last), Some(fill)) = (rows.last_mut(), fill) {
        if size <= 4096 {
            last.resize(size, fill.clone());
        }
    }
    Ok(Val::list(rows.into_iter().map(Val::list).collect()))
}

fn slices(items: Vec<Val>, args: &CallArgs) -> Outcome<Val> {
    let count = usize::try_from(args.int(0, "slices", 0)?).unwrap_or(0).clamp(1, 4096);
    let (size, extra) = (items.len() / count, items.len() % count);
    let fill = args.get(1, "fill_with").filter(|v| !matches!(v, Val::None));
    let mut rows = Vec::new();
    let mut rest = items.into_iter();
    for i in 0..count {
        let mut row: Vec<Val> = rest.by_ref().take(size + usize::from(i < extra)).collect();
        if let (Some(fill), true) = (fill, extra > 0 && i >= extra) {
            row.push(fill.clone());
        }
        rows.push(Val::list(row));
    }
    Ok(Val::list(rows))
}

pub fn join(run: &mut Run<'_>, value: &Val, args: &CallArgs) -> Outcome<String> {
    let separator = args.get(0, "d").map(Val::to_text).unwrap_or_default();
    let attribute = args.get(1, "attribute").cloned();
    let mut parts = Vec::new();
    for item in run.iterate(value)? {
        parts.push(path(&item, attribute.as_ref())?);
    }
    methods::join(run, &separator, &parts, false)
}
