//! The values a template computes with, and what Python says about them: truth, equality, order,
//! str() and repr().

use std::cell::RefCell;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::IndexMap;

use super::eval::{LoopState, MacroDef};
use crate::fault::{Fault, Outcome};

#[derive(Clone)]
pub enum Key {
    None,
    Bool(bool),
    Int(i128),
    Float(u64),
    Str(Rc<str>),
}

pub type Dict = IndexMap<Key, Val>;

/// A container that knows how deep it nests: printing, comparing and dropping recurse, so the
/// evaluator refuses values deeper than NESTING_MAX. Containers never hold a namespace, so they
/// cannot form a cycle.
pub struct Nested<T> {
    pub inner: T,
    pub depth: u32,
    /// About as many bytes as printing it takes; what is shared counts every time.
    pub weight: u64,
}

pub const NESTING_MAX: u32 = 200;

impl<T> std::ops::Deref for Nested<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

#[derive(Clone)]
pub enum Val {
    /// Undefined, with what to say when it is used, e.g. "'dict object' has no attribute 'x'".
    Undef(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<str>),
    List(Rc<Nested<Vec<Val>>>),
    Tuple(Rc<Nested<Vec<Val>>>),
    Dict(Rc<Nested<Dict>>),
    Namespace(Rc<RefCell<Dict>>),
    Loop(Rc<LoopState>),
    Macro(Rc<MacroDef>),
    Function(&'static str),
    Method(Rc<(Val, String)>),
}

impl Key {
    /// True and 1 are the same key.
    fn as_int(&self) -> Option<i128> {
        match self {
            Key::Bool(b) => Some(i128::from(*b)),
            Key::Int(i) => Some(*i),
            _ => None,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        match (self, other) {
            (Key::None, Key::None) => true,
            (Key::Str(a), Key::Str(b)) => a == b,
            (Key::Float(a), Key::Float(b)) => a == b,
            (a, b) => a.as_int().is_some() && a.as_int() == b.as_int(),
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Key::None => 0u8.hash(state),
            Key::Str(s) => s.hash(state),
            Key::Float(bits) => bits.hash(state),
            Key::Bool(_) | Key::Int(_) => self.as_int().hash(state),
        }
    }
}

impl Key {
    pub fn from_val(value: &Val) -> Outcome<Key> {
        Ok(match value {
            Val::None => Key::None,
            Val::Bool(b) => Key::Bool(*b),
            Val::Int(i) => Key::Int(*i),
            Val::Float(f) if f.fract() == 0.0 && f.abs() < 1e18 => Key::Int(*f as i128),
            Val::Float(f) => Key::Float(f.to_bits()),
            Val::Str(s) => Key::Str(s.clone()),
            other => {
                return Err(Fault::invalid(format!("unhashable type: '{}'", other.type_name())))
            }
        })
    }

    pub fn to_val(&self) -> Val {
        match self {
            Key::None => Val::None,
            Key::Bool(b) => Val::Bool(*b),
            Key::Int(i) => Val::Int(*i),
            Key::Float(bits) => Val::Float(f64::from_bits(*bits)),
            Key::Str(s) => Val::Str(s.clone()),
        }
    }
}

pub fn get_str<'a>(dict: &'a Dict, name: &str) -> Option<&'a Val> {
    dict.get(&Key::Str(name.into()))
}

impl Val {
    pub fn str(text: impl AsRef<str>) -> Val {
        Val::Str(text.as_ref().into())
    }

    pub fn list(items: Vec<Val>) -> Val {
        Val::List(nest(items))
    }

    pub fn tuple(items: Vec<Val>) -> Val {
        Val::Tuple(nest(items))
    }

    pub fn dict(inner: Dict) -> Val {
        let depth = inner.values().map(Val::depth).max().unwrap_or(0).saturating_add(1);
        let weight = dict_weight(&inner);
        Val::Dict(Rc::new(Nested { inner, depth, weight }))
    }

    /// Bytes it takes to print, copy or compare the value, about.
    pub fn weight(&self) -> u64 {
        match self {
            Val::Str(s) => s.len() as u64,
            Val::List(items) | Val::Tuple(items) => items.weight,
            Val::Dict(dict) => dict.weight,
            Val::Namespace(dict) => dict_weight(&dict.borrow()),
            _ => 0,
        }
    }

    pub fn depth(&self) -> u32 {
        match self {
            Val::List(items) | Val::Tuple(items) => items.depth,
            Val::Dict(dict) => dict.depth,
            // Counts as too deep on purpose: see Nested.
            Val::Namespace(_) | Val::Loop(_) | Val::Method(_) => NESTING_MAX + 1,
            _ => 0,
        }
    }

    pub fn undef(message: impl AsRef<str>) -> Val {
        Val::Undef(message.as_ref().into())
    }

    /// Python's name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Val::Undef(_) => "Undefined",
            Val::None => "NoneType",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Float(_) => "float",
            Val::Str(_) => "str",
            Val::List(_) => "list",
            Val::Tuple(_) => "tuple",
            Val::Dict(_) => "dict",
            Val::Namespace(_) => "Namespace",
            Val::Loop(_) => "LoopContext",
            Val::Macro(_) => "Macro",
            Val::Function(_) => "function",
            Val::Method(_) => "builtin_function_or_method",
        }
    }

    pub fn truth(&self) -> bool {
        match self {
            Val::Undef(_) | Val::None => false,
            Val::Bool(b) => *b,
            Val::Int(i) => *i != 0,
            Val::Float(f) => *f != 0.0,
            Val::Str(s) => !s.is_empty(),
            Val::List(items) | Val::Tuple(items) => !items.is_empty(),
            Val::Dict(dict) => !dict.is_empty(),
            _ => true,
        }
    }

    pub fn len(&self) -> Option<usize> {
        match self {
            Val::Undef(_) => Some(0),
            Val::Str(s) => Some(s.chars().count()),
            Val::List(items) | Val::Tuple(items) => Some(items.len()),
            Val::Dict(dict) => Some(dict.len()),
            Val::Loop(state) => Some(state.items.len()),
            _ => None,
        }
    }

    /// What a `for` runs over: items, keys, characters.
    pub fn iterate(&self) -> Outcome<Vec<Val>> {
        Ok(match self {
            Val::Undef(_) => Vec::new(),
            Val::Str(s) => s.chars().map(|c| Val::str(c.encode_utf8(&mut [0; 4]))).collect(),
            Val::List(items) | Val::Tuple(items) => items.inner.clone(),
            Val::Dict(dict) => dict.keys().map(Key::to_val).collect(),
            other => {
                let message = format!("'{}' object is not iterable", other.type_name());
                return Err(Fault::invalid(message));
            }
        })
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Val::Bool(b) => Some(f64::from(u8::from(*b))),
            Val::Int(i) => Some(*i as f64),
            Val::Float(f) => Some(*f),
            _ => None,
        }
    }

    /// An int as Python sees it: bool counts.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Val::Bool(b) => Some(i128::from(*b)),
            Val::Int(i) => Some(*i),
            _ => None,
        }
    }

    pub fn equals(&self, other: &Val) -> bool {
        match (self, other) {
            (Val::Undef(_), Val::Undef(_)) | (Val::None, Val::None) => true,
            (Val::Str(a), Val::Str(b)) => a == b,
            (Val::List(a), Val::List(b)) | (Val::Tuple(a), Val::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(x, y)| x.equals(y))
            }
            (Val::Dict(a), Val::Dict(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, x)| b.get(key).is_some_and(|y| x.equals(y)))
            }
            (Val::Namespace(a), Val::Namespace(b)) => Rc::ptr_eq(a, b),
            (Val::Macro(a), Val::Macro(b)) => Rc::ptr_eq(a, b),
            (Val::Function(a), Val::Function(b)) => a == b,
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(x), Some(y)) => x == y,
                _ => matches!((a.as_number(), b.as_number()), (Some(x), Some(y)) if x == y),
            },
        }
    }

    pub fn compare(&self, other: &Val, sign: &str) -> Outcome<Ordering> {
        match (self, other) {
            (Val::Str(a), Val::Str(b)) => return Ok(a.cmp(b)),
            (Val::List(a), Val::List(b)) | (Val::Tuple(a), Val::Tuple(b)) => {
                for (x, y) in a.iter().zip(b.iter()) {
                    if !x.equals(y) {
                        return x.compare(y, sign);
                    }
                }
                return Ok(a.len().cmp(&b.len()));
            }
            _ => {}
        }
        if let (Some(a), Some(b)) = (self.as_int(), other.as_int()) {
            return Ok(a.cmp(&b));
        }
        let order = match (self.as_number(), other.as_number()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => None,
        };
        order.ok_or_else(|| {
            let (a, b) = (self.type_name(), other.type_name());
            Fault::invalid(format!("'{sign}' not supported between instances of '{a}' and '{b}'"))
        })
    }
}

const ITEM_WEIGHT: u64 = 8;

fn nest(inner: Vec<Val>) -> Rc<Nested<Vec<Val>>> {
    let depth = inner.iter().map(Val::depth).max().unwrap_or(0).saturating_add(1);
    let add = |sum: u64, item: &Val| sum.saturating_add(item.weight() + ITEM_WEIGHT);
    let weight = inner.iter().fold(0, add);
    Rc::new(Nested { inner, depth, weight })
}

fn dict_weight(dict: &Dict) -> u64 {
    dict.iter().fold(0, |sum, (key, value)| {
        let key = if let Key::Str(s) = key { s.len() as u64 } else { 0 };
        sum.saturating_add(key + value.weight() + 2 * ITEM_WEIGHT)
    })
}
