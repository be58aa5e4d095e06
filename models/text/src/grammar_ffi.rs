//! The C interface of grammars; as ffi.rs.

use std::sync::Arc;

use crate::fault::Code;
use crate::ffi::{guarded, Buffer, View};
use crate::grammar::{Grammar, Grammars, Kind};
use crate::tokenizer::TextTokenizer;

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammars_new(
    tokenizer: *const Arc<TextTokenizer>,
    eos: *const i32,
    eos_count: usize,
    vocab_size: i32,
    out: *mut *mut Grammars,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let ends = match eos_count {
            0 => &[],
            count => unsafe { std::slice::from_raw_parts(eos, count) },
        };
        let made = Grammars::new(unsafe { &*tokenizer }, ends, vocab_size)?;
        unsafe { out.write(Box::into_raw(Box::new(made))) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammars_free(grammars: *mut Grammars) {
    if !grammars.is_null() {
        drop(unsafe { Box::from_raw(grammars) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_compile(
    grammars: *const Grammars,
    kind: i32,
    text: View,
    out: *mut *mut Grammar,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let text = unsafe { text.required() };
        let made = unsafe { &*grammars }.compile(Kind::of(kind)?, text)?;
        unsafe { out.write(Box::into_raw(Box::new(made))) };
        Ok(())
    };
    // A panic while a grammar is read is the grammar's fault.
    let code = unsafe { guarded(error, work) };
    if code == Code::Internal as i32 {
        Code::InvalidArgument as i32
    } else {
        code
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_copy(
    grammar: *const Grammar,
    out: *mut *mut Grammar,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let made = unsafe { &*grammar }.copy();
        unsafe { out.write(Box::into_raw(Box::new(made))) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_free(grammar: *mut Grammar) {
    if !grammar.is_null() {
        drop(unsafe { Box::from_raw(grammar) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_mask(
    grammar: *mut Grammar,
    words: *mut u32,
    count: usize,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let out = unsafe { std::slice::from_raw_parts_mut(words, count) };
        unsafe { &mut *grammar }.mask(out)
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_accept(
    grammar: *mut Grammar,
    id: i32,
    error: *mut Buffer,
) -> i32 {
    unsafe { guarded(error, || (&mut *grammar).accept(id)) }
}
