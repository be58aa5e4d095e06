//! The state of one render: what it may still spend, and the variables in scope.

use std::collections::HashMap;
use std::rc::Rc;

use minijinja::machinery::ast;

use super::value::{Val, NESTING_MAX};
use super::{Clock, Limits};
use crate::fault::{Fault, Outcome};

/// Depth of statements and expressions under evaluation, macros included; the thread's stack
/// (mod.rs) is sized for it.
const EVAL_DEPTH_MAX: u32 = 1500;

pub struct Scope {
    pub id: u64,
    parent: Option<usize>,
    vars: HashMap<String, Val>,
}

pub struct Run<'a> {
    fuel: u64,
    /// The largest single value, by weight: eight outputs, or what the request itself holds.
    value_bytes_max: u64,
    pub limits: Limits,
    pub clock: Clock,
    pub source: &'a str,
    /// The negation that a chain around it applies at its end: see expr_kind.
    pub set_aside: Option<usize>,
    pub scopes: Vec<Scope>,
    pub current: usize,
    next_scope_id: u64,
    pub macros: Vec<&'a ast::Macro<'a>>,
    pub macro_depth: u32,
    eval_depth: u32,
    pub loop_depth: usize,
}

impl<'a> Run<'a> {
    pub fn new(
        source: &'a str,
        variables: Vec<(String, Val)>,
        fuel: u64,
        limits: Limits,
        clock: Clock,
    ) -> Run<'a> {
        let values = 2 * variables.iter().map(|(_, value)| value.weight()).sum::<u64>();
        let root = Scope { id: 0, parent: None, vars: variables.into_iter().collect() };
        Run {
            fuel,
            value_bytes_max: values.max(8 * limits.output_bytes_max as u64),
            limits,
            clock,
            source,
            set_aside: None,
            scopes: vec![root],
            current: 0,
            next_scope_id: 1,
            macros: Vec::new(),
            macro_depth: 0,
            eval_depth: 0,
            loop_depth: 0,
        }
    }

    pub fn burn(&mut self, steps: u64) -> Outcome<()> {
        match self.fuel.checked_sub(steps) {
            Some(rest) => {
                self.fuel = rest;
                Ok(())
            }
            None => Err(Fault::exhausted("the chat template ran out of fuel (an endless loop?)")),
        }
    }

    /// Charges for a new value and refuses one that nests too deep or weighs too much, so that
    /// whatever exists can be printed, compared and dropped.
    pub fn charge(&mut self, value: &Val) -> Outcome<()> {
        let steps = match value {
            Val::Str(s) => s.len() / 16,
            Val::List(items) | Val::Tuple(items) => items.len(),
            Val::Dict(dict) => dict.len(),
            _ => return Ok(()),
        };
        if value.depth() > NESTING_MAX {
            let message = format!(
                "value nested deeper than {NESTING_MAX}, or a namespace or loop inside a container"
            );
            return Err(Fault::invalid(message));
        }
        self.fits(value.weight().into())?;
        self.burn(steps as u64)
    }

    /// Refuses before memory is taken: `bytes` is the size of what is about to be built.
    fn fits(&self, bytes: u128) -> Outcome<()> {
        if bytes > self.value_bytes_max.into() {
            let message = format!("the chat template builds a value of {bytes} bytes");
            return Err(Fault::exhausted(message));
        }
        Ok(())
    }

    pub fn reserve(&mut self, bytes: u128) -> Outcome<()> {
        self.fits(bytes)?;
        self.burn(bytes as u64 / 16)
    }

    /// Pays for reading the whole of a value.
    pub fn read(&mut self, value: &Val) -> Outcome<()> {
        self.reserve(value.weight().into())
    }

    pub fn text(&mut self, value: &Val) -> Outcome<Rc<str>> {
        self.read(value)?;
        Ok(value.to_text())
    }

    pub fn iterate(&mut self, value: &Val) -> Outcome<Vec<Val>> {
        let count = if let Val::Str(s) = value { s.len() } else { value.len().unwrap_or(0) };
        self.burn(count as u64)?;
        value.iterate()
    }

    pub fn enter(&mut self) -> Outcome<()> {
        self.eval_depth += 1;
        if self.eval_depth > EVAL_DEPTH_MAX {
            return Err(Fault::exhausted("the chat template nests too deep"));
        }
        self.burn(1)
    }

    pub fn leave(&mut self) {
        self.eval_depth -= 1;
    }

    pub fn push_scope(&mut self) -> usize {
        let id = self.next_scope_id;
        self.next_scope_id += 1;
        let previous = self.current;
        self.scopes.push(Scope { id, parent: Some(previous), vars: HashMap::new() });
        self.current = self.scopes.len() - 1;
        previous
    }

    pub fn pop_scope(&mut self, previous: usize) {
        self.scopes.pop();
        self.current = previous;
    }

    pub fn lookup(&self, name: &str) -> Option<Val> {
        let mut index = Some(self.current);
        while let Some(at) = index {
            if let Some(value) = self.scopes[at].vars.get(name) {
                return Some(value.clone());
            }
            index = self.scopes[at].parent;
        }
        None
    }

    pub fn define(&mut self, name: &str, value: Val) {
        self.scopes[self.current].vars.insert(name.to_owned(), value);
    }

    pub fn write(&mut self, out: &mut String, text: &str) -> Outcome<()> {
        let limit = self.limits.output_bytes_max;
        if out.len() + text.len() > limit {
            let message = format!("the chat template's output is larger than {limit} bytes");
            return Err(Fault::exhausted(message));
        }
        self.burn(text.len() as u64 / 16)?;
        out.push_str(text);
        Ok(())
    }
}
