//! Python's str() and repr() of a value.

use std::rc::Rc;

use super::float::float_repr;
use super::value::{Dict, Val};

impl Val {
    /// str(value), as `{{ value }}` and `~` print it.
    pub fn to_text(&self) -> Rc<str> {
        match self {
            Val::Str(s) => s.clone(),
            Val::Undef(_) => "".into(),
            other => {
                let mut out = String::new();
                other.repr_into(&mut out);
                out.into()
            }
        }
    }

    pub fn repr_into(&self, out: &mut String) {
        match self {
            Val::Undef(_) => out.push_str("Undefined"),
            Val::None => out.push_str("None"),
            Val::Bool(b) => out.push_str(if *b { "True" } else { "False" }),
            Val::Int(i) => out.push_str(&i.to_string()),
            Val::Float(f) => out.push_str(&float_repr(*f)),
            Val::Str(s) => repr_str(s, out),
            Val::List(items) => {
                out.push('[');
                repr_items(items, out);
                out.push(']');
            }
            Val::Tuple(items) => {
                out.push('(');
                repr_items(items, out);
                out.push_str(if items.len() == 1 { ",)" } else { ")" });
            }
            Val::Dict(dict) => repr_dict(dict, out),
            Val::Namespace(dict) => {
                out.push_str("<Namespace ");
                repr_dict(&dict.borrow(), out);
                out.push('>');
            }
            other => {
                out.push('<');
                out.push_str(other.type_name());
                out.push('>');
            }
        }
    }
}

fn repr_items(items: &[Val], out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        item.repr_into(out);
    }
}

fn repr_dict(dict: &Dict, out: &mut String) {
    out.push('{');
    for (i, (key, value)) in dict.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        key.to_val().repr_into(out);
        out.push_str(": ");
        value.repr_into(out);
    }
    out.push('}');
}

/// The standard library's debug form knows which characters Unicode calls printable; a leading
/// letter keeps it from escaping combining marks, which Python prints.
fn is_printable(c: char) -> bool {
    if c.is_ascii() || c.is_control() {
        return (' '..='~').contains(&c);
    }
    !['a', c].iter().collect::<String>().escape_debug().any(|e| e == '{')
}

fn repr_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}
