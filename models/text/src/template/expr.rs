//! Expressions: lookups, operators, calls, with Python's meaning as Jinja2's sandbox gives it.

use std::cmp::Ordering;

use minijinja::machinery::ast;
use minijinja::value::ValueKind;

use super::eval::{line, CallArgs};
use super::lookup::{attribute, item};
use super::run::Run;
use super::value::{Dict, Key, Val};
use super::{filters, functions, methods, ops, tests};
use crate::fault::{Fault, Outcome};

impl<'a> Run<'a> {
    pub fn expr(&mut self, node: &'a ast::Expr<'a>) -> Outcome<Val> {
        self.enter()?;
        let result = self.expr_kind(node);
        self.leave();
        let value = result.map_err(|e| e.at(line(node.span())))?;
        Ok(value)
    }

    /// MiniJinja reads -x.y as (-x).y; Jinja2, as everybody means it, as -(x.y).
    fn negated_chain(&mut self, node: &'a ast::Expr<'a>) -> Option<Outcome<Val>> {
        let negation = negated_base(node)?;
        let address = std::ptr::from_ref(negation).addr();
        if self.set_aside == Some(address) {
            return None;
        }
        let outer = self.set_aside.replace(address);
        let value = self.expr_kind(node);
        self.set_aside = outer;
        let is_double = negated(&negation.expr).is_some();
        let value = value.and_then(|value| ops::negate(&value));
        Some(if is_double { value.and_then(|value| ops::negate(&value)) } else { value })
    }

    fn expr_kind(&mut self, node: &'a ast::Expr<'a>) -> Outcome<Val> {
        if let Some(value) = self.negated_chain(node) {
            return value;
        }
        match node {
            ast::Expr::Var(e) => Ok(self.variable(e.id)),
            ast::Expr::Const(e) => constant(&e.value),
            ast::Expr::Slice(e) => self.slice(e),
            ast::Expr::UnaryOp(e) => {
                if self.set_aside == Some(std::ptr::from_ref(&**e).addr()) {
                    let inner = negated(&e.expr).map_or(&e.expr, |inner| &inner.expr);
                    return self.expr(inner);
                }
                let value = self.expr(&e.expr)?;
                match e.op {
                    ast::UnaryOpKind::Not => Ok(Val::Bool(!value.truth())),
                    ast::UnaryOpKind::Neg => ops::negate(&value),
                }
            }
            ast::Expr::BinOp(e) => self.binary(e),
            ast::Expr::Compare(e) => self.chain(e),
            ast::Expr::IfExpr(e) => {
                if self.expr(&e.test_expr)?.truth() {
                    return self.expr(&e.true_expr);
                }
                match &e.false_expr {
                    Some(other) => self.expr(other),
                    None => Ok(Val::undef("the inline if-expression has no else")),
                }
            }
            ast::Expr::Filter(e) => {
                let Some(input) = &e.expr else {
                    return Err(Fault::invalid("filter without a value"));
                };
                let value = self.expr(input)?;
                let args = self.arguments(&e.args)?;
                self.filter(e.name, value, args)
            }
            ast::Expr::Test(e) => {
                let value = self.expr(&e.expr)?;
                let args = self.arguments(&e.args)?;
                if tests::reads_value(e.name) {
                    self.read(&value)?;
                }
                self.read_containers(&args)?;
                tests::apply(e.name, &value, &args.pos).map(Val::Bool)
            }
            ast::Expr::GetAttr(e) => {
                let value = self.expr(&e.expr)?;
                attribute(&value, e.name)
            }
            ast::Expr::GetItem(e) => {
                let value = self.expr(&e.expr)?;
                let key = self.expr(&e.subscript_expr)?;
                self.read_text(&value)?;
                self.read_text(&key)?;
                item(&value, &key)
            }
            ast::Expr::Call(e) => {
                let callee = self.expr(&e.expr)?;
                let args = self.arguments(&e.args)?;
                self.call(&callee, args)
            }
            ast::Expr::List(e) => self.list(e, e.span().start_offset as usize),
            ast::Expr::Map(e) => self.map(e),
        }
    }

    /// The parser has one node for lists and tuples; `at` is where it starts in the source.
    fn list(&mut self, node: &'a ast::List<'a>, at: usize) -> Outcome<Val> {
        let mut items = Vec::new();
        for item in &node.items {
            items.push(self.expr(item)?);
        }
        let is_list = self.source.as_bytes().get(at) == Some(&b'[');
        let list = if is_list { Val::list(items) } else { Val::tuple(items) };
        self.charge(&list)?;
        Ok(list)
    }

    fn map(&mut self, node: &'a ast::Map<'a>) -> Outcome<Val> {
        let mut dict = Dict::new();
        for (key, value) in node.keys.iter().zip(&node.values) {
            let key = Key::from_val(&self.expr(key)?)?;
            dict.insert(key, self.expr(value)?);
        }
        let dict = Val::dict(dict);
        self.charge(&dict)?;
        Ok(dict)
    }

    fn slice(&mut self, node: &'a ast::Slice<'a>) -> Outcome<Val> {
        let value = self.expr(&node.expr)?;
        let start = self.bound(node.start.as_ref())?;
        let stop = self.bound(node.stop.as_ref())?;
        let step = self.bound(node.step.as_ref())?;
        self.read_text(&value)?;
        let result = ops::slice(&value, start, stop, step)?;
        self.charge(&result)?;
        Ok(result)
    }

    fn variable(&mut self, name: &str) -> Val {
        if let Some(value) = self.lookup(name) {
            return value;
        }
        match functions::find(name) {
            Some(function) => Val::Function(function),
            None => Val::undef(format!("'{name}' is undefined")),
        }
    }

    fn bound(&mut self, node: Option<&'a ast::Expr<'a>>) -> Outcome<Option<i128>> {
        let Some(node) = node else {
            return Ok(None);
        };
        match self.expr(node)? {
            Val::None => Ok(None),
            value => value
                .as_int()
                .map(Some)
                .ok_or_else(|| Fault::invalid("slice indices must be integers or None")),
        }
    }

    fn binary(&mut self, node: &'a ast::BinOp<'a>) -> Outcome<Val> {
        let left = self.expr(&node.left)?;
        match node.op {
            ast::BinOpKind::ScAnd if !left.truth() => return Ok(left),
            ast::BinOpKind::ScOr if left.truth() => return Ok(left),
            _ => {}
        }
        let right = self.expr(&node.right)?;
        use ast::BinOpKind as Op;
        if matches!(node.op, Op::Eq | Op::Ne | Op::Lt | Op::Lte | Op::Gt | Op::Gte) {
            self.burn(left.weight().min(right.weight()) / 16)?;
        }
        let value = match node.op {
            Op::ScAnd | Op::ScOr => return Ok(right),
            Op::Eq => Val::Bool(left.equals(&right)),
            Op::Ne => Val::Bool(!left.equals(&right)),
            Op::Lt => Val::Bool(left.compare(&right, "<")? == Ordering::Less),
            Op::Lte => Val::Bool(left.compare(&right, "<=")? != Ordering::Greater),
            Op::Gt => Val::Bool(left.compare(&right, ">")? == Ordering::Greater),
            Op::Gte => Val::Bool(left.compare(&right, ">=")? != Ordering::Less),
            Op::In => {
                self.pay_contains(&right, &left)?;
                Val::Bool(ops::contains(&right, &left)?)
            }
            Op::Concat => {
                let (a, b) = (self.text(&left)?, self.text(&right)?);
                self.reserve(a.len() as u128 + b.len() as u128)?;
                Val::Str([a, b].concat().into())
            }
            Op::Add => {
                self.reserve(u128::from(left.weight()) + u128::from(right.weight()))?;
                ops::add(&left, &right)?
            }
            Op::Mul => {
                let times = left.as_int().or(right.as_int()).unwrap_or(1).max(0) as u128;
                let size = if left.as_number().is_some() { &right } else { &left };
                self.reserve(u128::from(size.weight()).saturating_mul(times))?;
                ops::multiply(&left, &right)?
            }
            Op::Rem => {
                if let Val::Str(format) = &left {
                    let text = super::printf::format(self, format, &right)?;
                    return Ok(Val::Str(text.into()));
                }
                ops::arithmetic("%", &left, &right)?
            }
            Op::Sub => ops::arithmetic("-", &left, &right)?,
            Op::Div => ops::arithmetic("/", &left, &right)?,
            Op::FloorDiv => ops::arithmetic("//", &left, &right)?,
            Op::Pow => ops::arithmetic("**", &left, &right)?,
        };
        self.charge(&value)?;
        Ok(value)
    }

    fn chain(&mut self, node: &'a ast::Compare<'a>) -> Outcome<Val> {
        let mut left = self.expr(&node.expr)?;
        for step in &node.ops {
            let right = self.expr(&step.expr)?;
            use ast::CompareOpKind as Op;
            self.burn(left.weight().min(right.weight()) / 16)?;
            if matches!(step.op, Op::In | Op::NotIn) {
                self.pay_contains(&right, &left)?;
            }
            let holds = match step.op {
                Op::Eq => left.equals(&right),
                Op::Ne => !left.equals(&right),
                Op::Lt => left.compare(&right, "<")? == Ordering::Less,
                Op::Lte => left.compare(&right, "<=")? != Ordering::Greater,
                Op::Gt => left.compare(&right, ">")? == Ordering::Greater,
                Op::Gte => left.compare(&right, ">=")? != Ordering::Less,
                Op::In => ops::contains(&right, &left)?,
                Op::NotIn => !ops::contains(&right, &left)?,
            };
            if !holds {
                return Ok(Val::Bool(false));
            }
            left = right;
        }
        Ok(Val::Bool(true))
    }

    pub fn arguments(&mut self, nodes: &'a [ast::CallArg<'a>]) -> Outcome<CallArgs> {
        let mut args = CallArgs { pos: Vec::new(), named: Vec::new() };
        for node in nodes {
            match node {
                ast::CallArg::Pos(e) => args.pos.push(self.expr(e)?),
                ast::CallArg::Kwarg(name, e) => {
                    let value = self.expr(e)?;
                    args.named.push(((*name).to_owned(), value));
                }
                ast::CallArg::PosSplat(e) => {
                    let value = self.expr(e)?;
                    let items = self.iterate(&value)?;
                    args.pos.extend(items);
                }
                ast::CallArg::KwargSplat(e) => {
                    let Val::Dict(dict) = self.expr(e)? else {
                        return Err(Fault::invalid("argument after ** must be a mapping"));
                    };
                    self.burn(dict.len() as u64)?;
                    for (key, value) in dict.iter() {
                        args.named.push((key.to_val().to_text().to_string(), value.clone()));
                    }
                }
            }
        }
        Ok(args)
    }

    /// Pays for a string that is read from end to end.
    fn read_text(&mut self, value: &Val) -> Outcome<()> {
        match value {
            Val::Str(s) => self.burn(s.len() as u64 / 16),
            _ => Ok(()),
        }
    }

    fn read_containers(&mut self, args: &CallArgs) -> Outcome<()> {
        for value in args.pos.iter().chain(args.named.iter().map(|(_, value)| value)) {
            self.burn(value.weight() / 16)?;
        }
        Ok(())
    }

    fn pay_contains(&mut self, container: &Val, needle: &Val) -> Outcome<()> {
        match container {
            Val::Str(s) => self.burn(s.len() as u64 / 16),
            Val::List(items) | Val::Tuple(items) => {
                let most = needle.weight().saturating_mul(items.len() as u64).min(items.weight);
                self.burn(items.len() as u64 / 16 + most / 16)
            }
            _ => self.burn(needle.weight() / 16),
        }
    }

    pub fn call(&mut self, callee: &Val, args: CallArgs) -> Outcome<Val> {
        if !matches!(callee, Val::Macro(_)) {
            self.read_containers(&args)?;
        }
        let value = match callee {
            Val::Macro(def) => self.call_macro(def, args)?,
            Val::Function(name) => functions::call(self, name, args)?,
            Val::Method(bound) => methods::call(self, &bound.0, &bound.1, args)?,
            Val::Undef(why) => return Err(Fault::invalid(why.to_string())),
            other => {
                let message = format!("'{}' object is not callable", other.type_name());
                return Err(Fault::invalid(message));
            }
        };
        self.charge(&value)?;
        Ok(value)
    }

    pub fn filter(&mut self, name: &str, value: Val, args: CallArgs) -> Outcome<Val> {
        if filters::reads_value(name, &value) {
            self.read(&value)?;
        }
        self.read_containers(&args)?;
        let result = filters::apply(self, name, value, args)?;
        self.charge(&result)?;
        Ok(result)
    }

    /// Applies `{% set x | a | b %}`: the innermost filter has no value of its own.
    pub fn filter_chain(&mut self, node: &'a ast::Expr<'a>, value: Val) -> Outcome<Val> {
        let ast::Expr::Filter(e) = node else {
            return Err(Fault::invalid("expected a filter"));
        };
        let input = match &e.expr {
            Some(inner) => self.filter_chain(inner, value)?,
            None => value,
        };
        let args = self.arguments(&e.args)?;
        self.filter(e.name, input, args).map_err(|f| f.at(line(e.span())))
    }
}

fn negated<'n, 'a>(node: &'n ast::Expr<'a>) -> Option<&'n ast::UnaryOp<'a>> {
    match node {
        ast::Expr::UnaryOp(e) if matches!(e.op, ast::UnaryOpKind::Neg) => Some(e),
        _ => None,
    }
}

/// The minus sign at the root of a chain of lookups and calls.
fn negated_base<'n, 'a>(node: &'n ast::Expr<'a>) -> Option<&'n ast::UnaryOp<'a>> {
    let mut base = node;
    loop {
        base = match base {
            ast::Expr::GetAttr(e) => &e.expr,
            ast::Expr::GetItem(e) => &e.expr,
            ast::Expr::Slice(e) => &e.expr,
            ast::Expr::Call(e) => &e.expr,
            // The node itself is not a chain.
            _ if std::ptr::eq(base, node) => return None,
            _ => return negated(base),
        };
    }
}

fn constant(value: &minijinja::Value) -> Outcome<Val> {
    Ok(match value.kind() {
        ValueKind::None => Val::None,
        ValueKind::Bool => Val::Bool(value.is_true()),
        ValueKind::String => Val::str(value.as_str().unwrap_or_default()),
        ValueKind::Number => {
            if value.is_integer() {
                let int = i128::try_from(value.clone());
                Val::Int(int.map_err(|_| Fault::invalid("integer literal out of range"))?)
            } else {
                let float = f64::try_from(value.clone());
                Val::Float(float.map_err(|_| Fault::invalid("malformed number literal"))?)
            }
        }
        kind => return Err(Fault::invalid(format!("unexpected literal: {kind}"))),
    })
}
