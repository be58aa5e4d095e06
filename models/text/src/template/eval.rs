//! Runs a parsed template: statements here, expressions in expr.rs. Every step costs fuel, every
//! string costs fuel by its length, output and nesting are bounded, and there is no way to reach a
//! file, a clock or another template.

use std::cell::RefCell;
use std::rc::Rc;

use minijinja::machinery::{ast, Span};

use super::run::Run;
use super::value::{Dict, Key, Val, NESTING_MAX};
use crate::fault::{Fault, Outcome};

pub struct LoopState {
    pub items: Rc<Vec<Val>>,
    pub index: usize,
    pub depth: usize,
    pub changed: RefCell<Option<Vec<Val>>>,
}

/// A macro as a value: where its body is, and the scope it closes over.
pub struct MacroDef {
    pub index: usize,
    pub name: String,
    scope: usize,
    scope_id: u64,
}

pub enum Flow {
    Next,
    Break,
    Continue,
}

pub struct CallArgs {
    pub pos: Vec<Val>,
    pub named: Vec<(String, Val)>,
}

impl<'a> Run<'a> {
    pub fn run(&mut self, body: &'a [ast::Stmt<'a>], out: &mut String) -> Outcome<Flow> {
        for statement in body {
            self.enter()?;
            let flow = self.statement(statement, out);
            self.leave();
            match flow? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, node: &'a ast::Stmt<'a>, out: &mut String) -> Outcome<Flow> {
        match node {
            ast::Stmt::Template(s) => return self.run(&s.children, out),
            ast::Stmt::EmitRaw(s) => self.write(out, s.raw)?,
            ast::Stmt::EmitExpr(s) => {
                let value = self.expr(&s.expr)?;
                let text = self.text(&value).map_err(|e| e.at(line(s.span())))?;
                self.write(out, &text).map_err(|e| e.at(line(s.span())))?;
            }
            ast::Stmt::ForLoop(s) => {
                return self.for_loop(s, out).map_err(|e| e.at(line(s.span())));
            }
            ast::Stmt::IfCond(s) => {
                let body = if self.expr(&s.expr)?.truth() { &s.true_body } else { &s.false_body };
                return self.run(body, out);
            }
            ast::Stmt::WithBlock(s) => {
                return self.with_block(s, out).map_err(|e| e.at(line(s.span())));
            }
            ast::Stmt::Set(s) => {
                let value = self.expr(&s.expr)?;
                self.assign(&s.target, value).map_err(|e| e.at(line(s.span())))?;
            }
            ast::Stmt::SetBlock(s) => {
                let mut value = self.capture(&s.body)?;
                if let Some(filter) = &s.filter {
                    value = self.filter_chain(filter, value)?;
                }
                self.assign(&s.target, value).map_err(|e| e.at(line(s.span())))?;
            }
            ast::Stmt::AutoEscape(s) => {
                if self.expr(&s.enabled)?.truth() {
                    let message = "{% autoescape true %} is not supported in chat templates";
                    return Err(Fault::invalid(message).at(line(s.span())));
                }
                return self.run(&s.body, out);
            }
            ast::Stmt::FilterBlock(s) => {
                let value = self.capture(&s.body)?;
                let value = self.filter_chain(&s.filter, value)?;
                let text = self.text(&value)?;
                self.write(out, &text).map_err(|e| e.at(line(s.span())))?;
            }
            ast::Stmt::Macro(s) => {
                let value = self.close_over(s);
                self.define(s.name, value);
            }
            ast::Stmt::CallBlock(s) => {
                self.call_block(s, out).map_err(|e| e.at(line(s.span())))?;
            }
            ast::Stmt::Continue(_) => return Ok(Flow::Continue),
            ast::Stmt::Break(_) => return Ok(Flow::Break),
            ast::Stmt::Do(s) => {
                let callee = self.expr(&s.call.expr)?;
                let args = self.arguments(&s.call.args)?;
                self.call(&callee, args).map_err(|e| e.at(line(s.span())))?;
            }
        }
        Ok(Flow::Next)
    }

    fn with_block(&mut self, node: &'a ast::WithBlock<'a>, out: &mut String) -> Outcome<Flow> {
        let mut values = Vec::new();
        for (_, value) in &node.assignments {
            values.push(self.expr(value)?);
        }
        let previous = self.push_scope();
        for ((target, _), value) in node.assignments.iter().zip(values) {
            self.assign(target, value)?;
        }
        let flow = self.run(&node.body, out);
        self.pop_scope(previous);
        flow
    }

    fn call_block(&mut self, node: &'a ast::CallBlock<'a>, out: &mut String) -> Outcome<()> {
        let caller = self.close_over(&node.macro_decl);
        let callee = self.expr(&node.call.expr)?;
        let mut args = self.arguments(&node.call.args)?;
        args.named.push(("caller".into(), caller));
        let value = self.call(&callee, args)?;
        let text = self.text(&value)?;
        self.write(out, &text)
    }

    fn capture(&mut self, body: &'a [ast::Stmt<'a>]) -> Outcome<Val> {
        let previous = self.push_scope();
        let mut text = String::new();
        let flow = self.run(body, &mut text);
        self.pop_scope(previous);
        flow.map(|_| Val::Str(text.into()))
    }

    fn for_loop(&mut self, node: &'a ast::ForLoop<'a>, out: &mut String) -> Outcome<Flow> {
        if node.recursive {
            return Err(Fault::invalid("recursive loops are not supported in chat templates"));
        }
        let value = self.expr(&node.iter)?;
        let mut items = self.iterate(&value)?;
        if let Some(filter) = &node.filter_expr {
            let mut kept = Vec::new();
            for item in items {
                let previous = self.push_scope();
                self.assign(&node.target, item.clone())?;
                let keep = self.expr(filter)?.truth();
                self.pop_scope(previous);
                if keep {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.run(&node.else_body, out);
        }
        self.loop_depth += 1;
        let result = self.iterations(node, Rc::new(items), out);
        self.loop_depth -= 1;
        result
    }

    fn iterations(
        &mut self,
        node: &'a ast::ForLoop<'a>,
        items: Rc<Vec<Val>>,
        out: &mut String,
    ) -> Outcome<Flow> {
        let mut seen = None;
        for index in 0..items.len() {
            self.burn(1)?;
            let depth = self.loop_depth;
            let changed = RefCell::new(seen);
            let state = Rc::new(LoopState { items: items.clone(), index, depth, changed });
            let previous = self.push_scope();
            self.define("loop", Val::Loop(state.clone()));
            self.assign(&node.target, items[index].clone())?;
            let flow = self.run(&node.body, out);
            self.pop_scope(previous);
            seen = state.changed.take();
            if let Flow::Break = flow? {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn assign(&mut self, target: &'a ast::Expr<'a>, value: Val) -> Outcome<()> {
        match target {
            ast::Expr::Var(var) => self.define(var.id, value),
            ast::Expr::GetAttr(attr) => {
                let Val::Namespace(dict) = self.expr(&attr.expr)? else {
                    return Err(Fault::invalid("cannot assign attribute on non-namespace object"));
                };
                if attr.name.starts_with('_') {
                    let message = "cannot store underscore-prefixed attributes on a namespace";
                    return Err(Fault::invalid(message));
                }
                if value.depth() > NESTING_MAX {
                    let message = "cannot store a namespace or loop on a namespace";
                    return Err(Fault::invalid(message));
                }
                dict.borrow_mut().insert(Key::Str(attr.name.into()), value);
            }
            ast::Expr::List(list) => {
                let items = self.iterate(&value)?;
                if items.len() != list.items.len() {
                    let message = format!(
                        "cannot unpack {} values into {} names",
                        items.len(),
                        list.items.len()
                    );
                    return Err(Fault::invalid(message));
                }
                for (name, item) in list.items.iter().zip(items) {
                    self.assign(name, item)?;
                }
            }
            other => {
                return Err(Fault::invalid(format!("cannot assign to a {}", other.description())));
            }
        }
        Ok(())
    }

    fn close_over(&mut self, node: &'a ast::Macro<'a>) -> Val {
        let index = match self.macros.iter().position(|known| std::ptr::eq(*known, node)) {
            Some(index) => index,
            None => {
                self.macros.push(node);
                self.macros.len() - 1
            }
        };
        let scope_id = self.scopes[self.current].id;
        let name = node.name.to_owned();
        Val::Macro(Rc::new(MacroDef { index, name, scope: self.current, scope_id }))
    }

    pub fn call_macro(&mut self, def: &MacroDef, args: CallArgs) -> Outcome<Val> {
        if self.macro_depth >= self.limits.recursion_max {
            let message = format!("macros call each other deeper than {}", self.macro_depth);
            return Err(Fault::exhausted(message));
        }
        let node = self.macros[def.index];
        // A macro kept past its scope (through a namespace) sees the template's top level.
        let alive = self.scopes.get(def.scope).is_some_and(|s| s.id == def.scope_id);
        let caller_scope = self.current;
        self.current = if alive { def.scope } else { 0 };
        self.push_scope();
        self.macro_depth += 1;
        let result = self.macro_body(node, args);
        self.macro_depth -= 1;
        self.pop_scope(caller_scope);
        result
    }

    fn macro_body(&mut self, node: &'a ast::Macro<'a>, args: CallArgs) -> Outcome<Val> {
        let CallArgs { pos, mut named } = args;
        let mut pos = pos.into_iter();
        let first_default = node.args.len() - node.defaults.len();
        for (i, arg) in node.args.iter().enumerate() {
            let ast::Expr::Var(var) = arg else {
                return Err(Fault::invalid("malformed macro arguments"));
            };
            let given = match named.iter().position(|(name, _)| name == var.id) {
                Some(at) => Some(named.remove(at).1),
                None => pos.next(),
            };
            let value = match given {
                Some(value) => value,
                None if i >= first_default => self.expr(&node.defaults[i - first_default])?,
                None => Val::undef(format!("parameter '{}' was not provided", var.id)),
            };
            self.define(var.id, value);
        }
        if let Some(at) = named.iter().position(|(name, _)| name == "caller") {
            let caller = named.remove(at).1;
            self.define("caller", caller);
        }
        let varargs = pos.collect();
        self.define("varargs", Val::tuple(varargs));
        let kwargs: Dict = named.into_iter().map(|(k, v)| (Key::Str(k.into()), v)).collect();
        self.define("kwargs", Val::dict(kwargs));
        let mut text = String::new();
        self.run(&node.body, &mut text)?;
        Ok(Val::Str(text.into()))
    }
}

pub fn line(span: Span) -> u32 {
    u32::from(span.start_line)
}
