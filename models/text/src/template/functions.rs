//! The global functions of a chat template.

use std::cell::RefCell;
use std::rc::Rc;

use super::eval::CallArgs;
use super::run::Run;
use super::strftime::strftime;
use super::value::{Dict, Key, Val, NESTING_MAX};
use crate::fault::{Fault, Outcome};

const NAMES: [&str; 5] = ["dict", "namespace", "raise_exception", "range", "strftime_now"];

/// Jinja2's sandbox allows as many items.
const RANGE_MAX: i128 = 100_000;

pub fn find(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

pub fn call(run: &mut Run<'_>, name: &str, args: CallArgs) -> Outcome<Val> {
    match name {
        "dict" => Ok(Val::dict(dict_of(args)?)),
        "namespace" => {
            let dict = dict_of(args)?;
            for (key, value) in &dict {
                if matches!(key, Key::Str(name) if name.starts_with('_')) {
                    let message = "cannot store underscore-prefixed attributes on a namespace";
                    return Err(Fault::invalid(message));
                }
                if value.depth() >= NESTING_MAX {
                    return Err(Fault::invalid("cannot store a namespace or loop on a namespace"));
                }
            }
            Ok(Val::Namespace(Rc::new(RefCell::new(dict))))
        }
        "range" => range(run, &args.pos),
        "raise_exception" => {
            let message = args.pos.first().or(args.named.first().map(|(_, value)| value));
            Err(Fault::invalid(match message {
                Some(message) => message.to_text().to_string(),
                None => "raise_exception".to_owned(),
            }))
        }
        _ => {
            let format = args.pos.first().or(args.named.first().map(|(_, value)| value));
            let Some(Val::Str(format)) = format else {
                return Err(Fault::invalid("strftime_now needs a format string"));
            };
            run.reserve(16 * format.len() as u128)?;
            strftime(format, &run.clock).map(Val::str)
        }
    }
}

fn dict_of(args: CallArgs) -> Outcome<Dict> {
    let mut dict = Dict::new();
    match args.pos.first() {
        None => {}
        Some(Val::Dict(given)) => dict = given.inner.clone(),
        Some(pairs) => {
            for pair in pairs.iterate()? {
                let [key, value] = <[Val; 2]>::try_from(pair.iterate()?)
                    .map_err(|_| Fault::invalid("dict() needs pairs of a key and a value"))?;
                dict.insert(Key::from_val(&key)?, value);
            }
        }
    }
    for (name, value) in args.named {
        dict.insert(Key::Str(name.into()), value);
    }
    Ok(dict)
}

fn range(run: &mut Run<'_>, args: &[Val]) -> Outcome<Val> {
    let mut ints = Vec::new();
    for arg in args {
        let int = arg.as_int();
        ints.push(int.ok_or_else(|| Fault::invalid("range() needs integers"))?);
    }
    let (start, stop, step) = match ints[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => return Err(Fault::invalid("range() needs one to three integers")),
    };
    if step == 0 {
        return Err(Fault::invalid("range() arg 3 must not be zero"));
    }
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let count = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
    if count > RANGE_MAX {
        return Err(Fault::exhausted(format!("range() of more than {RANGE_MAX} items")));
    }
    run.burn(count as u64)?;
    Ok(Val::list((0..count).map(|i| Val::Int(start + i * step)).collect()))
}
