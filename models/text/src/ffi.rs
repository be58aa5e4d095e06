//! The C interface of troupe_text.h. Each function checks its pointers, runs under catch_unwind and
//! reports a code and one line.

use std::any::Any;
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};

use crate::detokenizer::Detokenizer;
use crate::fault::{Code, Fault, Outcome};
use crate::template::{Clock, Limits, Request, Template};
use crate::tokenizer::{Files, TextTokenizer};
use crate::{guard, tokenizer_config};

/// Bytes borrowed from the caller; data null means absent.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct View {
    data: *const u8,
    size: usize,
}

/// Bytes owned by this crate until troupe_text_buffer_free.
#[repr(C)]
pub struct Buffer {
    data: *mut u8,
    size: usize,
}

#[repr(C)]
pub struct Ids {
    data: *mut i32,
    size: usize,
}

#[repr(C)]
pub struct TokenizerFiles {
    tokenizer_json: View,
    tokenizer_config_json: View,
    special_tokens_map_json: View,
}

#[repr(C)]
pub struct RenderRequest {
    messages_json: View,
    tools_json: View,
    documents_json: View,
    kwargs_json: View,
    /// Names separated by \n.
    kwargs_allowed: View,
    add_generation_prompt: bool,
    now: Clock,
    limits: Limits,
}

impl View {
    /// The bytes, if there are any. The caller keeps them alive for the call.
    unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        if self.data.is_null() {
            return None;
        }
        Some(unsafe { std::slice::from_raw_parts(self.data, self.size) })
    }

    pub unsafe fn required<'a>(self) -> &'a [u8] {
        unsafe { self.bytes() }.unwrap_or(&[])
    }
}

unsafe fn give_bytes(out: *mut Buffer, text: String) {
    let bytes = text.into_bytes().into_boxed_slice();
    let size = bytes.len();
    let data = Box::into_raw(bytes).cast();
    unsafe { out.write(Buffer { data, size }) };
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What a caught panic becomes. The reason is the library's own text.
pub fn panic_fault(panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    Fault::new(Code::Internal, format!("the text library failed: {text}"))
}

/// Caught panics are reported as errors, so their message must not also go to stderr.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let caught = [crate::template::THREAD_NAME, crate::grammar::THREAD_NAME];
            let caught = std::thread::current().name().is_some_and(|name| caught.contains(&name));
            if !caught && !GUARDED.with(Cell::get) {
                previous(info);
            }
        }));
    });
}

/// Runs `work`; 0 or the code of its fault, whose text goes to `error`.
pub unsafe fn guarded(error: *mut Buffer, work: impl FnOnce() -> Outcome<()>) -> i32 {
    quiet_panics();
    let outer = GUARDED.with(|flag| flag.replace(true));
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.with(|flag| flag.set(outer));
    let outcome = result.unwrap_or_else(|panic| Err(panic_fault(panic.as_ref())));
    match outcome {
        Ok(()) => 0,
        Err(fault) => {
            unsafe { give_bytes(error, fault.text()) };
            fault.code as i32
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_buffer_free(buffer: Buffer) {
    if !buffer.data.is_null() {
        let slice = std::ptr::slice_from_raw_parts_mut(buffer.data, buffer.size);
        drop(unsafe { Box::from_raw(slice) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_ids_free(ids: Ids) {
    if !ids.data.is_null() {
        let slice = std::ptr::slice_from_raw_parts_mut(ids.data, ids.size);
        drop(unsafe { Box::from_raw(slice) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_tokenizer_open(
    files: *const TokenizerFiles,
    out: *mut *mut Arc<TextTokenizer>,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let files = unsafe { &*files };
        let opened = TextTokenizer::open(&Files {
            tokenizer_json: unsafe { files.tokenizer_json.required() },
            tokenizer_config: unsafe { files.tokenizer_config_json.bytes() },
            special_tokens_map: unsafe { files.special_tokens_map_json.bytes() },
        })?;
        unsafe { out.write(Box::into_raw(Box::new(Arc::new(opened)))) };
        Ok(())
    };
    // A panic while a file is read is the file's fault.
    let code = unsafe { guarded(error, work) };
    if code == Code::Internal as i32 {
        Code::InvalidArgument as i32
    } else {
        code
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_tokenizer_free(tokenizer: *mut Arc<TextTokenizer>) {
    if !tokenizer.is_null() {
        drop(unsafe { Box::from_raw(tokenizer) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_encode(
    tokenizer: *const Arc<TextTokenizer>,
    text: View,
    add_special_tokens: bool,
    parse_special: bool,
    out: *mut Ids,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let tokenizer = unsafe { &*tokenizer };
        let ids =
            tokenizer.encode(unsafe { text.required() }, add_special_tokens, parse_special)?;
        let ids = ids.into_boxed_slice();
        let size = ids.len();
        unsafe { out.write(Ids { data: Box::into_raw(ids).cast(), size }) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_decode(
    tokenizer: *const Arc<TextTokenizer>,
    ids: *const i32,
    count: usize,
    skip_special_tokens: bool,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let tokenizer = unsafe { &*tokenizer };
        let ids =
            if count == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(ids, count) } };
        unsafe { give_bytes(out, tokenizer.decode(ids, skip_special_tokens)?) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_token_count(tokenizer: *const Arc<TextTokenizer>) -> i32 {
    unsafe { &*tokenizer }.token_count() as i32
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_is_special(
    tokenizer: *const Arc<TextTokenizer>,
    id: i32,
) -> bool {
    unsafe { &*tokenizer }.is_special(id)
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_id_to_token(
    tokenizer: *const Arc<TextTokenizer>,
    id: i32,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let piece = unsafe { &*tokenizer }.piece(id);
        let missing = || Fault::new(Code::OutOfRange, format!("no token has the id {id}"));
        unsafe { give_bytes(out, piece.ok_or_else(missing)?) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_token_to_id(
    tokenizer: *const Arc<TextTokenizer>,
    token: View,
) -> i32 {
    let found = catch_unwind(AssertUnwindSafe(|| {
        let token = std::str::from_utf8(unsafe { token.required() }).ok()?;
        unsafe { &*tokenizer }.token_to_id(token)
    }));
    found.ok().flatten().unwrap_or(-1)
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_detokenizer_new(
    tokenizer: *const Arc<TextTokenizer>,
    skip_special_tokens: bool,
    out: *mut *mut Detokenizer,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let tokenizer = unsafe { &*tokenizer }.clone();
        let made = Detokenizer::new(tokenizer, skip_special_tokens)?;
        unsafe { out.write(Box::into_raw(Box::new(made))) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_detokenizer_free(detokenizer: *mut Detokenizer) {
    if !detokenizer.is_null() {
        drop(unsafe { Box::from_raw(detokenizer) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_detokenizer_push(
    detokenizer: *mut Detokenizer,
    id: i32,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let text = unsafe { &mut *detokenizer }.push(id)?;
        unsafe { give_bytes(out, text) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_detokenizer_finish(
    detokenizer: *mut Detokenizer,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let text = unsafe { &mut *detokenizer }.finish()?;
        unsafe { give_bytes(out, text) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_template_open(
    chat_template: View,
    tokenizer_config_json: View,
    special_tokens_map_json: View,
    out: *mut *mut Template,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let config = unsafe { tokenizer_config_json.bytes() };
        let config = tokenizer_config::parse_object("tokenizer_config.json", config)?;
        let special_map = unsafe { special_tokens_map_json.bytes() };
        let special_map = tokenizer_config::parse_object("special_tokens_map.json", special_map)?;
        let named = tokenizer_config::resolve(&config, &special_map, None)?.named;
        let (default, tool_use) = match unsafe { chat_template.bytes() } {
            Some(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|e| {
                    let at = e.valid_up_to();
                    Fault::invalid(format!("the chat template has malformed UTF-8 at byte {at}"))
                })?;
                (Some(text.to_owned()), None)
            }
            None => tokenizer_config::templates(&config)?,
        };
        if default.is_none() && tool_use.is_none() {
            let message = "tokenizer_config.json has no chat_template";
            return Err(Fault::new(Code::NotFound, message));
        }
        let size = default.iter().chain(&tool_use).map(String::len).max().unwrap_or(0);
        if size > guard::TEMPLATE_BYTES_MAX {
            let message = format!("the chat template has {size} bytes, more than 1 MiB");
            return Err(Fault::exhausted(message));
        }
        let template = Template::new(default, tool_use, named)?;
        unsafe { out.write(Box::into_raw(Box::new(template))) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_template_free(template: *mut Template) {
    if !template.is_null() {
        drop(unsafe { Box::from_raw(template) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_template_render(
    template: *const Template,
    request: *const RenderRequest,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let request = unsafe { &*request };
        let allowed = std::str::from_utf8(unsafe { request.kwargs_allowed.required() });
        let allowed = allowed.unwrap_or_default().split('\n').filter(|name| !name.is_empty());
        let text = unsafe { &*template }.render(&Request {
            messages: unsafe { request.messages_json.required() },
            tools: unsafe { request.tools_json.bytes() },
            documents: unsafe { request.documents_json.bytes() },
            kwargs: unsafe { request.kwargs_json.bytes() },
            kwargs_allowed: allowed.collect(),
            add_generation_prompt: request.add_generation_prompt,
            clock: request.now,
            limits: request.limits,
        })?;
        unsafe { give_bytes(out, text) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}
