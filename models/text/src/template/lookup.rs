//! What `value.name` and `value[key]` find.

use std::rc::Rc;

use super::eval::LoopState;
use super::value::{Key, Val};
use super::{methods, ops};
use crate::fault::{Fault, Outcome};

/// `value.name`: a method of the type first, then the key of that name.
pub fn attribute(value: &Val, name: &str) -> Outcome<Val> {
    if let Val::Undef(why) = value {
        return Err(Fault::invalid(why.to_string()));
    }
    if let Val::Namespace(dict) = value {
        return Ok(super::value::get_str(&dict.borrow(), name).cloned().unwrap_or_else(|| {
            Val::undef(format!("'Namespace' object has no attribute '{name}'"))
        }));
    }
    if let Val::Loop(state) = value {
        return Ok(loop_attribute(state, name, value));
    }
    if let (Val::Macro(def), "name") = (value, name) {
        return Ok(Val::str(&def.name));
    }
    if methods::has(value, name) {
        return Ok(Val::Method(Rc::new((value.clone(), name.to_owned()))));
    }
    if let Val::Dict(dict) = value {
        if let Some(found) = super::value::get_str(dict, name) {
            return Ok(found.clone());
        }
    }
    Ok(missing(value, name))
}

/// `value[key]`: the key first, then the method of that name.
pub fn item(value: &Val, key: &Val) -> Outcome<Val> {
    match value {
        Val::Undef(why) => return Err(Fault::invalid(why.to_string())),
        Val::Dict(dict) => {
            if let Some(found) = Key::from_val(key).ok().and_then(|key| dict.get(&key)) {
                return Ok(found.clone());
            }
        }
        Val::List(items) | Val::Tuple(items) => {
            if let Some(index) = key.as_int() {
                let found = ops::position(index, items.len()).map(|at| items[at].clone());
                return Ok(found.unwrap_or_else(|| missing(value, &key.to_text())));
            }
        }
        Val::Str(text) => {
            if let Some(index) = key.as_int() {
                let chars: Vec<char> = text.chars().collect();
                let found = ops::position(index, chars.len()).map(|at| chars[at].to_string());
                return Ok(found.map_or_else(|| missing(value, &key.to_text()), Val::str));
            }
        }
        _ => {}
    }
    match key {
        Val::Str(name) => attribute(value, name),
        Val::Int(_) | Val::Bool(_) | Val::None => Ok(missing(value, &key.to_text())),
        _ => Ok(missing(value, key.type_name())),
    }
}

fn missing(value: &Val, name: &str) -> Val {
    Val::undef(format!("'{} object' has no attribute '{name}'", value.type_name()))
}

fn loop_attribute(state: &LoopState, name: &str, value: &Val) -> Val {
    let (index, length) = (state.index, state.items.len());
    let int = |n: usize| Val::Int(n as i128);
    match name {
        "index" => int(index + 1),
        "index0" => int(index),
        "revindex" => int(length - index),
        "revindex0" => int(length - index - 1),
        "first" => Val::Bool(index == 0),
        "last" => Val::Bool(index + 1 == length),
        "length" => int(length),
        "depth" => int(state.depth),
        "depth0" => int(state.depth - 1),
        "previtem" if index > 0 => state.items[index - 1].clone(),
        "previtem" => Val::undef("there is no previous item"),
        "nextitem" if index + 1 < length => state.items[index + 1].clone(),
        "nextitem" => Val::undef("there is no next item"),
        "cycle" | "changed" => Val::Method(Rc::new((value.clone(), name.to_owned()))),
        _ => missing(value, name),
    }
}
