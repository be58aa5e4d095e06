//! Chat templates: MiniJinja's parser, and an evaluator with Python's semantics.
//!
//! Hugging Face renders a chat template with Jinja2's immutable sandbox, and templates lean on what
//! Python makes of values: `{{ none }}` is "None", `x ~ true` is "True", `d.items` is a method even
//! where a key of that name exists, lists print as Python lists. MiniJinja parses the same language
//! but computes with its own values, so only its parser is used; evaluation is here, where every
//! step is metered.

mod eval;
mod expr;
mod filters;
mod float;
mod functions;
mod json;
mod lookup;
mod methods;
mod ops;
mod printf;
mod repr;
mod run;
mod sequences;
mod strftime;
mod tests;
mod text;
mod value;

use minijinja::machinery::{ast, parse, tokenize, Token, WhitespaceConfig};

use crate::fault::{Code, Fault, Outcome};
pub use strftime::Clock;
use value::{get_str, Dict, Key, Val};

/// What a render may cost. Fuel is base + per_value for each JSON value and 1 for each byte of the
/// request, because an honest template's steps grow with the conversation: 100 k steps run out
/// after some hundred messages.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Limits {
    pub fuel_base: u64,
    pub fuel_per_value: u64,
    pub fuel_max: u64,
    pub output_bytes_max: usize,
    pub recursion_max: u32,
}

/// The evaluator recurses at most 1500 deep and the parser 150; measured need is below 8 MiB.
const STACK_BYTES: usize = 32 << 20;
pub const THREAD_NAME: &str = "chat_template";

pub struct Request<'r> {
    pub messages: &'r [u8],
    pub tools: Option<&'r [u8]>,
    pub documents: Option<&'r [u8]>,
    pub kwargs: Option<&'r [u8]>,
    pub kwargs_allowed: Vec<&'r str>,
    pub add_generation_prompt: bool,
    pub clock: Clock,
    pub limits: Limits,
}

pub struct Template {
    default: Option<String>,
    tool_use: Option<String>,
    /// bos_token, eos_token ... as the template sees them.
    special_tokens: Vec<(String, String)>,
}

/// Jinja2 reads every kind of line end as \n; its `generation` block only marks text for training
/// and scopes like a `with` block.
fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at + 2]);
        rest = &rest[at + 2..];
        for (tag, replacement) in [("generation", "with"), ("endgeneration", "endwith")] {
            let body = rest.trim_start_matches(['-', '+']);
            let lead = rest.len() - body.len();
            let name = body.trim_start();
            let Some(after) = name.strip_prefix(tag) else {
                continue;
            };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&rest[..lead + body.len() - name.len()]);
                out.push_str(replacement);
                rest = after;
                break;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The parser recurses for some operators and for elif without a bound of its own; public templates
/// have at most 200 tokens in a tag and 20 elif.
const TAG_TOKENS_MAX: usize = 4096;
const ELIF_MAX: usize = 1024;

fn check_shape(source: &str) -> Outcome<()> {
    let (mut in_tag, mut elif) = (0, 0);
    let tokens = tokenize(source, false, Default::default(), Default::default());
    for (token, span) in tokens.map_while(Result::ok) {
        in_tag += 1;
        match token {
            Token::VariableStart | Token::BlockStart => in_tag = 0,
            Token::Ident("elif") => elif += 1,
            _ => {}
        }
        if in_tag > TAG_TOKENS_MAX || elif > ELIF_MAX {
            let message = format!(
                "a chat template has at most {TAG_TOKENS_MAX} words in a tag and {ELIF_MAX} elif"
            );
            return Err(Fault::exhausted(message).at(eval::line(span)));
        }
    }
    Ok(())
}

fn parse_template(source: &str) -> Outcome<ast::Stmt<'_>> {
    let whitespace =
        WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    parse(source, "chat template", Default::default(), whitespace).map_err(|e| {
        let detail = e.detail().map(str::to_owned).unwrap_or_else(|| e.kind().to_string());
        Fault::invalid(detail).at(e.line().unwrap_or(0) as u32)
    })
}

/// Runs `work` on a thread whose stack is known to be large enough, whoever calls.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name(THREAD_NAME.into()).stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work).map_err(|e| {
            Fault::exhausted(format!("cannot start the chat template's thread: {e}"))
        })?;
        thread.join().unwrap_or_else(|panic| Err(crate::ffi::panic_fault(panic.as_ref())))
    })
}

impl Template {
    pub fn new(
        default: Option<String>,
        tool_use: Option<String>,
        special_tokens: Vec<(String, String)>,
    ) -> Outcome<Template> {
        let template = Template {
            default: default.as_deref().map(prepare),
            tool_use: tool_use.as_deref().map(prepare),
            special_tokens,
        };
        on_large_stack(|| {
            for source in [&template.default, &template.tool_use].into_iter().flatten() {
                check_shape(source)?;
                parse_template(source)?;
            }
            Ok(())
        })?;
        Ok(template)
    }

    pub fn render(&self, request: &Request<'_>) -> Outcome<String> {
        on_large_stack(|| self.render_here(request))
    }

    fn render_here(&self, request: &Request<'_>) -> Outcome<String> {
        let messages = json::parse("messages", request.messages)?;
        let mut size = request.messages.len() as u64;
        let mut count = messages.count;
        let mut named: Vec<(String, Val)> = self
            .special_tokens
            .iter()
            .map(|(name, token)| (name.clone(), Val::str(token)))
            .collect();
        let mut list_or_none = |what: &str, bytes: Option<&[u8]>| -> Outcome<Val> {
            let Some(bytes) = bytes else {
                return Ok(Val::None);
            };
            let parsed = json::parse(what, bytes)?;
            size += bytes.len() as u64;
            count += parsed.count;
            match &parsed.value {
                Val::List(items) if items.iter().all(|i| matches!(i, Val::Dict(_))) => {
                    Ok(parsed.value)
                }
                Val::None => Ok(Val::None),
                _ => Err(Fault::invalid(format!("{what} must be a list of JSON objects"))),
            }
        };
        let tools = list_or_none("tools", request.tools)?;
        let documents = list_or_none("documents", request.documents)?;
        if let Some(bytes) = request.kwargs {
            size += bytes.len() as u64;
            let parsed = json::parse("chat_template_kwargs", bytes)?;
            count += parsed.count;
            named.extend(allowed_kwargs(&parsed.value, &request.kwargs_allowed)?);
        }
        let has_tools = !matches!(tools, Val::None);
        named.push(("messages".into(), normal_messages(&messages.value)?));
        named.push(("tools".into(), tools));
        named.push(("documents".into(), documents));
        let prompt = Val::Bool(request.add_generation_prompt);
        named.push(("add_generation_prompt".into(), prompt));

        let limits = request.limits;
        let fuel = limits.fuel_base.saturating_add(size);
        let fuel = fuel.saturating_add(count.saturating_mul(limits.fuel_per_value));
        let source = self.choose(has_tools)?;
        let tree = parse_template(source)?;
        let mut run =
            run::Run::new(source, named, fuel.min(limits.fuel_max), limits, request.clock);
        let mut out = String::new();
        run.run(std::slice::from_ref(&tree), &mut out)?;
        Ok(out)
    }

    fn choose(&self, has_tools: bool) -> Outcome<&str> {
        let chosen = match &self.tool_use {
            Some(template) if has_tools => Some(template),
            _ => self.default.as_ref(),
        };
        chosen.map(String::as_str).ok_or_else(|| {
            let message = "the folder has several chat templates and none is named 'default'";
            Fault::new(Code::FailedPrecondition, message)
        })
    }
}

fn allowed_kwargs(value: &Val, allowed: &[&str]) -> Outcome<Vec<(String, Val)>> {
    let Val::Dict(dict) = value else {
        return Err(Fault::invalid("chat_template_kwargs must be a JSON object"));
    };
    let mut named = Vec::new();
    for (key, value) in dict.iter() {
        let name = key.to_val().to_text();
        if !allowed.contains(&&*name) {
            let message = format!(
                "chat_template_kwargs: '{name}' is not allowed; allowed: {}",
                allowed.join(", ")
            );
            return Err(Fault::invalid(message));
        }
        named.push((name.to_string(), value.clone()));
    }
    Ok(named)
}

/// As apply_chat_template does before rendering: keys whose value is null are dropped, and a
/// message's reasoning is readable under both of its usual names.
/// Source: transformers 5, tokenization_utils_base.py and utils/chat_template_utils.py.
fn normal_messages(value: &Val) -> Outcome<Val> {
    let Val::List(items) = value else {
        return Err(Fault::invalid("messages must be a list of JSON objects"));
    };
    if items.is_empty() {
        return Err(Fault::invalid("messages is empty: give at least one message"));
    }
    let mut messages = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let Val::Dict(message) = item else {
            return Err(Fault::invalid(format!("messages[{i}] is not a JSON object")));
        };
        let mut kept = Dict::new();
        let present = message.iter().filter(|(_, value)| !matches!(value, Val::None));
        let present: Vec<_> = present.map(|(k, v)| (k.clone(), v.clone())).collect();
        let reasoning = ["reasoning_content", "thinking", "reasoning"]
            .iter()
            .find_map(|name| get_str(message, name).filter(|v| !matches!(v, Val::None)).cloned());
        if let Some(reasoning) = &reasoning {
            kept.insert(Key::Str("thinking".into()), reasoning.clone());
        }
        kept.extend(present);
        if let Some(reasoning) = reasoning {
            kept.insert(Key::Str("reasoning_content".into()), reasoning);
        }
        messages.push(Val::dict(kept));
    }
    Ok(Val::list(messages))
}
