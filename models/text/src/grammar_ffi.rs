//! The grammars' part of troupe_text.h; see ffi.rs.

use std::sync::Arc;

use crate::fault::{Code, Fault};
use crate::ffi::{guarded, Buffer, View};
use crate::grammar::{Factory, Grammar, Kind, State};
use crate::tokenizer::TextTokenizer;

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_factory_new(
    tokenizer: *const Arc<TextTokenizer>,
    vocab_size: usize,
    ends: *const i32,
    end_count: usize,
    out: *mut *mut Arc<Factory>,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let ends = if end_count == 0 {
            &[][..]
        } else {
            unsafe { std::slice::from_raw_parts(ends, end_count) }
        };
        let made = Factory::new(unsafe { &*tokenizer }, vocab_size, ends)?;
        unsafe { out.write(Box::into_raw(Box::new(Arc::new(made)))) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_factory_free(factory: *mut Arc<Factory>) {
    if !factory.is_null() {
        drop(unsafe { Box::from_raw(factory) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_compile(
    factory: *const Arc<Factory>,
    kind: u8,
    text: View,
    out: *mut *mut Grammar,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let unknown = || Fault::new(Code::Internal, format!("no grammar has the kind {kind}"));
        let kind = Kind::from_tag(kind).ok_or_else(unknown)?;
        let made = Grammar::compile(unsafe { &*factory }, kind, unsafe { text.required() })?;
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
pub unsafe extern "C" fn troupe_text_grammar_start(
    grammar: *const Grammar,
    out: *mut *mut State,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let state = unsafe { &*grammar }.start()?;
        unsafe { out.write(Box::into_raw(Box::new(state))) };
        Ok(())
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_state_free(state: *mut State) {
    if !state.is_null() {
        drop(unsafe { Box::from_raw(state) });
    }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_mask(
    state: *mut State,
    words: *mut u32,
    count: usize,
    error: *mut Buffer,
) -> i32 {
    let work = || {
        let words = if count == 0 {
            &mut [][..]
        } else {
            unsafe { std::slice::from_raw_parts_mut(words, count) }
        };
        unsafe { &mut *state }.mask(words)
    };
    unsafe { guarded(error, work) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_accept(
    state: *mut State,
    id: i32,
    error: *mut Buffer,
) -> i32 {
    unsafe { guarded(error, || (*state).accept(id)) }
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_may_stop(state: *const State) -> bool {
    unsafe { &*state }.may_stop()
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_grammar_finished(state: *const State) -> bool {
    unsafe { &*state }.finished()
}
